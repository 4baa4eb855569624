"""How good is a model: numbers with intervals, groups of patients, pictures, a card."""
