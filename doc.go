// Package s3sink lands a service's events in an S3 bucket, as gzipped
// newline-delimited JSON at keys that readers of Segment's and RudderStack's S3
// destinations already understand.
//
//	sink, err := s3sink.New(ctx, s3sink.Config{Bucket: "acme-events", SourceID: "checkout"})
//	…
//	err = sink.Track(event) // from any goroutine
//	…
//	err = sink.Close(ctx)   // uploads what is left
//
// # The way of an event
//
//	Track            line.go, event.go    what is it?            a value → one JSON line, checked, or an error now
//	  │
//	Source           source.go            whose, and of which day? (received.go)
//	  │              block.go             line → the open block of its partition (source and received-day)
//	batcher          batcher.go           when does a block close, and when an object?
//	  │
//	deflate          internal/deflate     block → compressed frame, on all cores
//	  │
//	spool            internal/spool       frames → segment; its key is drawn with the first one (spool.go, gather.go:
//	  │                                   in memory, or in a journal on disk)
//	  │  size, count, age, Flush, Close or short memory seals the segment
//	upload           internal/upload      which segment next, how many at once, when to try again
//	  │
//	put              deliver.go           segment → request; internal/s3put sends it and says what the answer means
//	  │              credentials.go       as whom (session.go); encryption.go and headers.go: with which headers
//	  │  2xx, or 412 on our own key
//	settled          batcher.go           released; Flush and Close waiters told; hooks.go
//
// # What holds
//
// A batch is a segment is an object: bytes once compressed never change, and a
// retry, also after an answer that was lost, sends the same bytes to the same
// key. With If-None-Match, which is on for AWS, S3 stores them once.
//
// Events of one source of which one is tracked before the other stand in that
// order: lines within an object, then objects by the sequence in their metadata
// and by the UUID in their key. There is no order between sources. Where
// [Config].ReceivedAt brings the times, this holds within each day.
//
// An object is one gzip member of whole lines, never empty, and never longer
// than [Config].MaxObjectBytes. Memory is bounded by [Config].MaxMemory.
//
// Every event that Track took is counted until it is in S3 or given up, and
// [Sink.Stats] can be checked at any moment:
//
//	Accepted + Recovered = Delivered + Pending + Quarantined + Dropped
//
// Without [Config].SpoolDir events wait in memory: what the process loses before
// they are uploaded is lost, so call [Sink.Close] before it ends. With it they
// wait on disk, and what a process leaves there the next one delivers, under the
// same keys: see [Durability].
//
// During setup, [Sink.Validate] says whether the sink can write, and if not
// what to change.
//
// # Sources of these rules
//
// The layout of keys, the 100 MB and the format are those of Segment's "AWS S3
// with IAM role" destination; validation of calls is the Segment Spec's; the
// rest is S3's own: If-None-Match, checksums, limits of keys. DESIGN.md has the
// reasons.
package s3sink
