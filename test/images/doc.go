// Package images builds the container images that the tests and the demo run,
// from the packages of the distribution and nothing else, and pushes them to a
// registry.
//
// A built set is an OCI image layout below the cache directory, named after a
// digest of everything that went into it: the package versions and the sources
// of this package. Layers are deterministic, so the same inputs give the same
// digests on every machine.
package images
