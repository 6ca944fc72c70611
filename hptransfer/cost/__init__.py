"""What a run costs, where it is placed and how fast it goes, before it trains."""
