"""What the operator says, checked."""
