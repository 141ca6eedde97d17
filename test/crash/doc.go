// Package crash kills what must be able to die at any moment (the daemon, at its
// side effects, chosen from outside by a tracer that counts its system calls;
// monitors), and makes go wrong what can: disks, networks, records, clients,
// processes that do not end. Meanwhile lists and statuses must not wait: how
// long they take under each fault is logged.
package crash
