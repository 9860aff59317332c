"""The web page of a trained model: search among images, matching, predictions, classes typed by hand."""
