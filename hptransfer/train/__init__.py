"""One run, alone or in lanes: roles, build, batches, schedule, engine, coordinate check."""
