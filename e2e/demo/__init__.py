"""`make demo`: the story of one expert on a real cluster, told with what was measured."""
