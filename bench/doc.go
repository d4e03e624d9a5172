// Bench measures three things that a Go benchmark cannot: a cold start on the
// spool of another process, the memory of a process, and rates over minutes.
//
//	cd bench && GOWORK=off go run . recover -size 1GiB
//	cd bench && GOWORK=off go run . all -update ../docs/performance.md
//
// Each figure comes from a child process (child.go), so that it includes no
// memory of another measurement. The kernel reports the child's peak memory
// when the child ends. Alternatives take turns in one run, and their medians
// are compared. No request leaves the process: the S3 double either accepts
// every PUT (nullStore) or never answers (deadStore); see store.go.
//
// The files and their measurements:
//
//   - recover.go, backlog.go: the start on the spool of a process that ended
//     without Close (fill.go). The spool is dropped from the page cache
//     (system_linux.go). Each round opens hard links to its files. A journal
//     never writes to a file of a previous run, so every round finds the same.
//   - sources.go: ten thousand sources in one sink.
//   - pipeline.go: events at full speed, from Track to the object.
//   - sync.go: a consumer that calls Sync before it commits its offsets.
//   - each.go: Track calls that wait for an fsync.
package main
