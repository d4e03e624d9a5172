package s3sink

import "time"

// Stats are counts since New. Those of events, in the first block, are exact
// and of one moment:
//
//	Accepted + Recovered = Delivered + Pending + Quarantined + Dropped
//
// Each is counted where it happens; Pending is counted by looking at what is
// there, not worked out from the others.
type Stats struct {
	// Events.
	Accepted    int64 // Track returned nil
	Recovered   int64 // left in the spool by earlier runs, as far as they have been read
	Delivered   int64 // in S3
	Pending     int64 // in the sink
	Quarantined int64 // in objects that were damaged, in memory or in the spool
	Dropped     int64 // given up by Close, or taken by a sink that is Disabled

	Rejected int64 // calls of Track that returned an error; not in Accepted, but for ErrOutcomeUnknown

	// Objects in S3.
	Objects        int64
	ObjectBytes    int64 // as stored
	RawBytes       int64 // of NDJSON
	Attempts       int64 // to send one, over all objects
	LostAnswers    int64 // objects that S3 had already, because an answer was lost or cut off
	MissedHooks    int64 // calls that a slow hook missed
	OpenPartitions int   // partitions that gather events now
	Memory         int64 // bytes of MaxMemory in use now
	MemoryPeak     int64 // the most that ever were
	PendingBlocks  int   // pending blocks: open, being compressed, or in objects not in S3; those of one that are on disk are one

	UploadError  error     // why the last attempt to store an object failed, an [*UploadError]; nil if it succeeded
	FailingSince time.Time // since when every attempt has failed; zero while uploads work

	Oldest time.Time // when the oldest pending event was tracked; zero if there is none

	SpoolBytes int64     // of the spool's files
	SpoolError error     // why the last commit failed, a [*SpoolError]; nil if it did not
	Synced     time.Time // with a SpoolDir: every event accepted before it is on disk or in S3; the current time while no event waits for the disk
	Foreign    int64     // events in the spool for another bucket or prefix; not in Recovered

	// Recovering says that the files of earlier runs are still being read: Recovered
	// and Foreign may rise. New does not wait for that; Flush does.
	Recovering bool

	// What this run has found in the files of earlier ones.
	SpoolDamaged int64 // bytes that had been on disk and were damaged
	SpoolTorn    int64 // bytes of what a crash had cut off; nobody was told that it was on disk
}

// Stats returns the counts. It looks at every pending block, so it is meant
// for every few seconds, not for every event.
func (s *Sink) Stats() Stats {
	st := s.batcher.stats()
	st.Rejected = s.rejected.Load()
	st.Attempts = s.attempts.Load()
	st.LostAnswers = s.existed.Load()
	st.MissedHooks = s.hooks.missed.Load()
	st.Memory, st.MemoryPeak = s.batcher.budget.Used()
	if last, since := s.uploads.failing(); last != nil {
		st.UploadError, st.FailingSince = last, since
	}
	st.Foreign = s.foreignEvents.Load()
	st.SpoolDamaged, st.SpoolTorn = s.spoolDamaged.Load(), s.spoolTorn.Load()
	if s.journal != nil {
		st.SpoolBytes, st.Synced = s.journal.Bytes(), s.journal.Synced()
		if err := s.journal.Err(); err != nil {
			st.SpoolError = &SpoolError{Err: err}
		}
	}
	return st
}

func (b *batcher) stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	st := Stats{
		Recovered: b.recoveredEvents, Recovering: b.recovering,
		Accepted:  b.accepted,
		Delivered: b.settledEvents[delivered], Quarantined: b.settledEvents[quarantined], Dropped: b.settledEvents[dropped],
		Objects: b.objects, ObjectBytes: b.bytes, RawBytes: b.rawBytes,
		OpenPartitions: b.open.Len(), PendingBlocks: len(b.pending),
	}
	for blk := range b.pending {
		n := blk.events.Load()
		st.Pending += n
		if st.Oldest.IsZero() || blk.opened.Before(st.Oldest) {
			st.Oldest = blk.opened
		}
		if !blk.cut {
			st.Accepted += n // b.accepted gets them when the block is cut
		}
	}
	return st
}
