// Package s3sink delivers a service's events to an S3 bucket, as gzipped
// newline-delimited JSON. Readers of Segment's and RudderStack's S3 destinations
// understand the object keys and the format.
//
//	sink, err := s3sink.New(ctx, s3sink.Config{Bucket: "acme-events", SourceID: "checkout"})
//	…
//	err = sink.Track(event) // from any goroutine
//	…
//	err = sink.Close(ctx)   // uploads the pending events
//
// # The way of an event
//
//	Track            line.go, event.go    value → one checked JSON line, or an error now
//	  │
//	Source           source.go            source id and received-day (received.go) select the partition
//	  │              block.go             line → the open block of its partition
//	batcher          batcher.go           when does a block close, and when an object?
//	  │
//	deflate          internal/deflate     block → compressed frame, on all cores
//	  │
//	spool            internal/spool       frames → segment, in memory or in a journal (spool.go, gather.go);
//	  │                                   the first frame fixes the key
//	  │  size, count, age, Flush, Close or memory relief seals the segment
//	upload           internal/upload      order of segments, concurrency, retries with backoff
//	  │
//	put              deliver.go           segment → request; internal/s3put sends it and classifies the answer
//	  │              credentials.go       identity and sessions (session.go); headers: encryption.go, headers.go
//	  │  2xx, or 412 on our own key
//	settled          batcher.go           memory released; waiters of Flush and Close notified; hooks.go
//
// # Guarantees
//
// A batch is a segment is an object. Compressed bytes never change. A retry sends
// the same bytes to the same key, also after a lost answer. With If-None-Match,
// the default for AWS, S3 stores each object once.
//
// Events of one source are stored in the order of their Track calls, if one call
// returns before the next begins. Within an object the lines have this order.
// Between objects, the sequence in their metadata and the UUID in their key give
// it. There is no order between sources. With [Config].ReceivedAt the order holds
// within each received-day.
//
// An object is one gzip member of whole lines. It is never empty and never longer
// than [Config].MaxObjectBytes. [Config].MaxMemory bounds memory.
//
// Every accepted event is counted, and each snapshot of [Sink.Stats] balances:
//
//	Accepted + Recovered = Delivered + Pending + Quarantined + Dropped
//
// Without [Config].SpoolDir pending events are in memory, and the end of the
// process loses them: call [Sink.Close] first. With SpoolDir they are on disk, and
// the next run delivers them under the same keys. [Durability] says which events
// may still be in memory.
//
// During setup, [Sink.Validate] reports whether the sink can write, and otherwise
// which setting or permission to change.
//
// # Terms
//
// Code, logs, errors and documents use each of these words with one meaning.
//
//   - event: the value that a caller passes to Track.
//   - line: the event as one line of JSON, which ends with a line break.
//   - source: the stream of events with one source id. Order holds within a source.
//   - partition: the events of one source and one received-day.
//   - block: consecutive lines of one partition that are compressed together.
//   - frame: a compressed block.
//   - segment: the frames of one object, and its key. It is open, then sealed, then
//     removed.
//   - object: a segment as S3 stores it.
//   - key: the name of an object in the bucket. It is fixed with the segment's first
//     frame.
//   - run: the life of one sink, from New until Close or the end of the process. A
//     previous run used the same SpoolDir before this run.
//   - caller: code that calls the package.
//   - operator: a person who runs the service and can change settings, permissions
//     and disks.
//   - journal file: one file of the spool. Files are numbered and hold records.
//   - record: one entry of a journal file: staged lines, a frame, a seal, a delivery.
//   - staged: written to the journal as lines, because the block has no frame yet.
//   - commit: one write and one fsync of a group of records, for all callers that
//     wait.
//   - fsynced: known to be on disk, because an fsync after the write succeeded.
//   - torn: cut off by a crash before the fsync. Torn records were never
//     acknowledged.
//   - corrupt: fsynced once, and now unreadable or different from its checksum.
//   - attempt: one request that stores an object.
//   - backoff: the wait between two attempts.
//   - parked: not retried for now, because S3 refuses the object until an operator
//     acts. Parked objects get a trial every [Config].RetryParked.
//   - pending: accepted or recovered, and not yet delivered, quarantined or dropped.
//   - recovered: left in the spool by a previous run, and adopted by this run.
//
// # Sources of these rules
//
// Segment's "AWS S3 with IAM role" destination sets the layout of keys, the limit of
// 100 MB and the format. The Segment Spec sets the rules for calls. S3 sets
// If-None-Match, checksums and the limits of keys. DESIGN.md has the reasons.
package s3sink
