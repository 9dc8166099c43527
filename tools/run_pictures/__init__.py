"""Pictures of classification runs, drawn from what they saved, a file for each kind. Nothing here trains or scores."""
