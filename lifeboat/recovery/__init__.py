"""Getting it back: recovery targets, restore points, restore plans and where a recovery landed."""
