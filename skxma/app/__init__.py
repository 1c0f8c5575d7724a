"""A page on which to try it: pictures into columns, a fit, a query and the evidence for its answer (`skxma app`)."""
