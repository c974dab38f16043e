"""The settings: one frozen tree, validated once at the edge."""
