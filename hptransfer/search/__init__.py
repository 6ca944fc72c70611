"""Which runs to make next: the bracket, Optuna samplers and studies, and the plan."""
