// Torture kills a sink that has a spool thousands of times, cuts its power, and
// then compares the events in the bucket with the acknowledged events.
//
//	cd torture && GOWORK=off go run . -kills 10000 -cuts 1000 -fs ext4,xfs
//
// A child process (child.go) tracks numbered events of several sources and
// writes each acknowledgement to a pipe. The parent kills it at a random moment,
// also during its start and its recovery (life.go), and starts the next child on
// the same directory. At the end of a lot, a child drains the spool, and the
// parent compares the bucket with the acknowledgements (lot.go, oracle.go). Each
// lot has an s3sinktest server, which outlives the children. It refuses requests,
// loses answers and delays them.
//
// With -cuts the directory is on a separate file system, ext4 or XFS in a
// loop-mounted image, which is shut down while the child runs (power_linux.go).
// That needs root. Without root the command prints SKIP and the reason.
//
//	cd torture && GOWORK=off go run . -full -fs tmpfs,ext4,xfs,btrfs
//
// With -full no power is cut. A volume fills up while S3 is down, and the sink must
// drain it when S3 is back (full_linux.go).
package main
