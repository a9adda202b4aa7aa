"""From trained networks to the boxes that count."""
