//! Nothing: the sources of a dependency are all that is wanted of this package.
