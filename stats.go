package s3sink

import "time"

// Stats are counts since New. The event counts, in the first group, are exact and
// taken at one moment:
//
//	Accepted + Recovered = Delivered + Pending + Quarantined + Dropped
//
// Each count has its own counter. Pending is counted over the pending blocks, not
// computed from the other counts, so the equation is a check.
type Stats struct {
	// Events.
	Accepted    int64 // Track returned nil
	Recovered   int64 // found in the spool so far, left by previous runs
	Delivered   int64 // in S3
	Pending     int64 // in the sink
	Quarantined int64 // in objects that were damaged in memory or in the spool
	Dropped     int64 // abandoned by Close, or tracked while the sink is Disabled

	Rejected int64 // calls of Track that returned an error; not in Accepted, except calls that returned ErrOutcomeUnknown

	// Objects in S3.
	Objects        int64
	ObjectBytes    int64 // as stored
	RawBytes       int64 // of NDJSON
	Attempts       int64 // uploads begun, over all objects
	LostAnswers    int64 // objects that an earlier attempt had stored, although its answer was lost or its connection cut
	MissedHooks    int64 // hook calls that were skipped because a hook is too slow
	OpenPartitions int   // open partitions
	Memory         int64 // bytes of MaxMemory in use
	MemoryPeak     int64 // the greatest value of Memory so far
	PendingBlocks  int   // compression blocks not yet in S3; the blocks of one object that are on disk count as one

	UploadError  error     // error of the last upload attempt, an [*UploadError]; nil if it succeeded
	FailingSince time.Time // every attempt has failed since then; zero while uploads work

	Oldest time.Time // when the oldest pending event was tracked; zero if no event is pending

	SpoolBytes int64     // size of the spool's files
	SpoolError error     // error of the last commit, a [*SpoolError]; nil if it succeeded
	Synced     time.Time // with a SpoolDir: every event accepted before it is on disk or in S3; the current time while no event waits for the disk
	Foreign    int64     // events in the spool for another bucket or prefix; not in Recovered

	// Recovering is true while files of previous runs are being read: Recovered
	// and Foreign may still rise. New does not wait for recovery; Flush does.
	Recovering bool

	// Damage that this run has found in the files of previous runs.
	SpoolDamaged int64 // corrupt bytes that had been fsynced
	SpoolTorn    int64 // bytes of unfinished writes, torn by a crash; no event in them was acknowledged as durable
}

// Stats returns the counts. It visits every pending block: call it every few
// seconds, not for every event.
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
			st.Accepted += n // the cut adds them to b.accepted
		}
	}
	return st
}
