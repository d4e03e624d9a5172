// Torture kills a sink that has a spool, thousands of times, and cuts its
// power, and then counts what is in the bucket.
//
//	cd torture && GOWORK=off go run . -kills 10000 -cuts 1000 -fs ext4,xfs
//
// A child process (child.go) tracks numbered events of several sources and
// writes each acknowledgement to a pipe. The parent ends it at a random moment,
// also while it starts and recovers (life.go), and starts the next one on the
// same directory. Now and then, at the end of a lot, a child drains the spool
// and what is in the bucket is held against what was acknowledged (lot.go,
// oracle.go). Each lot has an s3sinktest server, which outlives the children,
// fails requests, loses answers and is slow.
//
// With -cuts the directory is on a file system of its own, ext4 or XFS in a
// loop-mounted image, which is shut down under the child (power_linux.go). That
// needs root; elsewhere it says SKIP and why.
//
//	cd torture && GOWORK=off go run . -full -fs tmpfs,ext4,xfs,btrfs
//
// With -full nothing is cut: a volume fills up while S3 is down, and must drain
// when S3 is well (full.go).
package main
