// Bench measures what a benchmark within one process cannot: cold starts on a
// spool that another process has left, the memory of a process, and rates over
// minutes.
//
//	cd bench && GOWORK=off go run . recover -size 1GiB
//	cd bench && GOWORK=off go run . all -update ../docs/performance.md
//
// Each figure comes from a child process (child.go), so memory is that child's
// own: its peak is what the kernel says when it ends. What is compared takes
// turns in the same run, and medians are compared. Nothing leaves the process:
// a null store takes every PUT, or a dead one hangs (store.go).
//
// recover.go and backlog.go fill a spool in a child that dies without Close, drop it
// from the page cache (system_linux.go), and open links to its files, because the journal
// never writes to a file of an earlier run; so every round finds the same.
// sources.go has ten thousand sources in one sink, pipeline.go the whole way of an
// event at full speed, sync.go a consumer that commits offsets, and each.go Track that waits for the disk.
package main
