"""Programs that run in processes of their own: spawn workers and the loop-lag host."""
