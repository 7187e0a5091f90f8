"""What is read off results: the comparison, Table 1, field, profiles, null test, figures."""
