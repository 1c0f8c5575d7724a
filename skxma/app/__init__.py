"""A page to try it: images into classes, a fit, a query and the evidence for its answer (`skxma app`)."""
