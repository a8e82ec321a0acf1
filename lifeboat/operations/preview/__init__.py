"""What a restore would undo: quickly from the activity index, exactly from a scratch restore."""
