"""What every other package stands on: constants, parameters, errors, the response surface, files and threads."""
