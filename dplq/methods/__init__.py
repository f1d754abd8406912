"""Every method's learner and model, without Dassl."""
