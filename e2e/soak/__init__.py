"""`make soak`: rollouts of random experts under load, and whether anything fails or grows."""
