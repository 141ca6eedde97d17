// Package crash kills what must be able to die at any moment: the daemon, at
// its side effects, chosen from outside by a tracer that counts its system
// calls.
package crash
