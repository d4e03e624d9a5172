package upload_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink/internal/s3put"
	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/upload"
)

// store is a bucket with scripted answers, for use in a synctest bubble.
type store struct {
	answer func(sequence uint64) error // nil: every PUT succeeds
	takes  time.Duration

	mu        sync.Mutex
	attempts  []uint64 // sequences, in the order they began
	times     []time.Time
	running   int
	most      int
	delivered []uint64
	parked    []uint64
	damaged   []uint64
}

func (s *store) put(ctx context.Context, order upload.Order) (s3put.Result, error) {
	seg := order.Segment
	order.Progress()
	s.mu.Lock()
	s.attempts = append(s.attempts, seg.Sequence)
	s.times = append(s.times, time.Now())
	s.running++
	s.most = max(s.most, s.running)
	answer := s.answer
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.running--
		s.mu.Unlock()
	}()
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return s3put.Result{}, ctx.Err()
	}
	if answer != nil {
		if err := answer(seg.Sequence); err != nil {
			return s3put.Result{}, err
		}
	}
	return s3put.Result{}, nil
}

func (s *store) answers(f func(sequence uint64) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

func (s *store) counts() (attempts, delivered, parked int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.attempts), len(s.delivered), len(s.parked)
}

func (s *store) uploader(concurrency int) *upload.Uploader {
	return upload.New(upload.Settings{
		Put:         s.put,
		Concurrency: concurrency,
		MinRate:     64 << 10,
		RetryParked: 5 * time.Minute,
		Attempted:   func(upload.Attempt) {},
		Damaged: func(r upload.Refusal) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.damaged = append(s.damaged, r.Segment.Sequence)
		},
		Delivered: func(d upload.Delivery) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.delivered = append(s.delivered, d.Segment.Sequence)
		},
		Parked: func(r upload.Refusal) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.parked = append(s.parked, r.Segment.Sequence)
		},
	})
}

func add(u *upload.Uploader, sequences ...uint64) {
	for _, n := range sequences {
		u.Add(spool.NewSegment(spool.Header{Sequence: n}))
	}
}

func fails(class s3put.Class) func(uint64) error {
	return func(uint64) error { return &s3put.Error{Class: class, Err: errors.New("scripted")} }
}

// Given ready segments, then the segment with the lowest sequence starts first.
func TestUploader_OldestFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{takes: time.Second}
		u := s.uploader(1)
		add(u, 3, 4, 9, 7, 8, 5, 6)
		time.Sleep(time.Minute)
		u.Stop()
		if want := []uint64{3, 4, 5, 6, 7, 8, 9}; !slices.Equal(s.attempts, want) {
			t.Errorf("attempts %v, want %v", s.attempts, want)
		}
	})
}

// Given more segments than Concurrency, then at most Concurrency attempts run
// in parallel.
func TestUploader_Concurrency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{takes: time.Second}
		u := s.uploader(3)
		add(u, 1, 2, 3, 4, 5, 6)
		time.Sleep(3 * time.Second)
		if left := u.Stop(); len(left) != 0 || s.most != 3 {
			t.Errorf("%d left, %d at once, want 0 and 3", len(left), s.most)
		}
	})
}

// Given a day without S3, then it costs few requests, and delivery begins
// within one backoff after its end.
func TestUploader_OutageOfADay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const segments = 1000
		s := &store{answer: fails(s3put.Transient), takes: time.Millisecond}
		u := s.uploader(4)
		for n := range uint64(segments) {
			add(u, n+1)
			time.Sleep(time.Second)
		}
		time.Sleep(24 * time.Hour)
		tries, _, parked := s.counts()
		// One probe each 30 s on average is 2,880 a day; without the shared
		// gate every segment would make that number of attempts.
		if tries < 1440 || tries > 8000 || parked != 0 {
			t.Errorf("%d attempts in a day, %d parked", tries, parked)
		}
		s.answers(nil)
		time.Sleep(3 * time.Minute)
		if _, delivered, _ := s.counts(); delivered != segments {
			t.Errorf("%d delivered 3 minutes after the outage, want %d", delivered, segments)
		}
		u.Stop()
	})
}

// Given failures in a row, then the backoff doubles up to its limit, with full
// jitter.
func TestUploader_BackoffGrowsWithJitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: fails(s3put.Transient)}
		u := s.uploader(1)
		add(u, 1)
		time.Sleep(6 * time.Hour)
		u.Stop()
		var waits []time.Duration
		for i := 1; i < len(s.times); i++ {
			waits = append(waits, s.times[i].Sub(s.times[i-1]))
		}
		// Two full-jitter waits run side by side, the segment's and the
		// gate's; the longer decides.
		if waits[0] > 200*time.Millisecond || slices.Max(waits) > 60*time.Second {
			t.Errorf("first wait %v, longest %v", waits[0], slices.Max(waits))
		}
		late := waits[20:]
		if slices.Max(late) < 30*time.Second || slices.Min(late) > 40*time.Second {
			t.Errorf("late waits from %v to %v are not spread", slices.Min(late), slices.Max(late))
		}
	})
}

// Given one segment that always fails, then the others are delivered.
func TestUploader_FailingSegmentBlocksNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{takes: 10 * time.Millisecond, answer: func(n uint64) error {
			if n == 1 {
				return &s3put.Error{Class: s3put.Transient, Err: errors.New("always")}
			}
			return nil
		}}
		u := s.uploader(4)
		for n := range uint64(500) {
			add(u, n+1)
		}
		time.Sleep(2 * time.Minute)
		if _, delivered, _ := s.counts(); delivered != 499 {
			t.Errorf("%d delivered, want 499", delivered)
		}
		if left := u.Stop(); len(left) != 1 || left[0].Sequence != 1 {
			t.Errorf("left %v", left)
		}
	})
}

// Given a bucket that refuses uploads, then one attempt is made per interval,
// not one per segment.
func TestUploader_ParkedProbes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: fails(s3put.Parked), takes: time.Millisecond}
		u := s.uploader(4)
		for n := range uint64(600) {
			add(u, n+1)
			time.Sleep(time.Second)
		}
		time.Sleep(50 * time.Minute)
		tries, _, _ := s.counts()
		if tries > 4+2*12 {
			t.Errorf("%d attempts in an hour at a bucket that refuses", tries)
		}
		if u.Why() == nil {
			t.Error("no reason given")
		}
		s.answers(nil)
		time.Sleep(6 * time.Minute)
		if _, delivered, _ := s.counts(); delivered != 600 {
			t.Errorf("%d delivered after it was mended, want 600", delivered)
		}
		if why := u.Why(); why != nil {
			t.Errorf("still parked: %v", why)
		}
		u.Stop()
	})
}

// Given parked segments, when Unpark is called, then they are retried at once.
func TestUnpark_TriesImmediately(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: fails(s3put.Parked)}
		u := s.uploader(2)
		add(u, 1, 2, 3)
		synctest.Wait()
		s.answers(nil)
		u.Unpark()
		synctest.Wait()
		if _, delivered, _ := s.counts(); delivered != 3 {
			t.Errorf("%d delivered, want 3", delivered)
		}
		u.Stop()
	})
}

// Given an attempt that began before Unpark, when it is refused afterwards,
// then the segment is retried instead of parked.
func TestUnpark_RunningAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: fails(s3put.Parked), takes: time.Second}
		u := s.uploader(4)
		add(u, 1, 2, 3)
		time.Sleep(500 * time.Millisecond)
		s.answers(nil) // for attempts that begin now
		u.Unpark()
		time.Sleep(5 * time.Second)
		if _, delivered, _ := s.counts(); delivered != 3 {
			t.Errorf("%d delivered 5 s after it was mended, want 3", delivered)
		}
		u.Stop()
	})
}

// Given a bucket that refuses uploads, when the probed segment is found
// damaged, then the others do not wait forever.
func TestUploader_DamagedProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: fails(s3put.Parked)}
		u := s.uploader(1)
		add(u, 1)
		synctest.Wait()
		s.answers(fails(s3put.Damaged))
		time.Sleep(6 * time.Minute)
		s.answers(nil)
		add(u, 2)
		time.Sleep(6 * time.Minute)
		if _, delivered, _ := s.counts(); delivered != 1 || u.Why() != nil {
			t.Errorf("%d delivered, why %v", delivered, u.Why())
		}
		u.Stop()
	})
}

// Given one source that is refused, then other sources are delivered.
func TestUploader_RefusedSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: func(n uint64) error {
			if n%2 == 0 {
				return &s3put.Error{Class: s3put.Parked, Err: errors.New("denied")}
			}
			return nil
		}}
		u := s.uploader(4)
		for n := range uint64(100) {
			add(u, n+1)
			time.Sleep(time.Second)
		}
		if _, delivered, parked := s.counts(); delivered != 50 || parked < 50 {
			t.Errorf("%d delivered and %d parked, want 50 and 50 or more", delivered, parked)
		}
		u.Stop()
	})
}

// Given refused segments with a separate prefix, then only a few of them are
// attempted, and segments without that prefix are delivered at once. When one of
// the separate segments is accepted, all are delivered.
func TestAddRecovered_SeparatePrefix(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		denied := func(n uint64) error {
			if n <= 100 {
				return &s3put.Error{Class: s3put.Parked, Err: errors.New("denied")}
			}
			return nil
		}
		s := &store{answer: denied}
		u := s.uploader(4)
		for n := range uint64(100) {
			u.AddRecovered(spool.NewSegment(spool.Header{Sequence: n + 1}), true)
		}
		for n := range uint64(100) {
			add(u, n+101)
			time.Sleep(time.Second)
			if _, delivered, _ := s.counts(); delivered != int(n)+1 {
				t.Fatalf("%d delivered, want %d", delivered, n+1)
			}
		}
		if _, _, parked := s.counts(); parked < 4 || parked >= 8 {
			t.Errorf("%d were sent to be refused, want a few", parked)
		}
		if u.Why() == nil || len(u.Stuck()) != 100 {
			t.Errorf("%d are stuck because of %v, want 100", len(u.Stuck()), u.Why())
		}
		s.answers(nil)
		time.Sleep(5 * time.Minute)
		if _, delivered, _ := s.counts(); delivered != 200 || u.Why() != nil {
			t.Errorf("%d delivered, want all: %v", delivered, u.Why())
		}
		u.Stop()
	})
}

// Given a class with an immediate retry, then the second failure in a row parks
// the segment.
func TestUploader_ImmediateRetryOnce(t *testing.T) {
	t.Parallel()
	for _, class := range []s3put.Class{s3put.Refresh, s3put.Skew, s3put.Elsewhere} {
		synctest.Test(t, func(t *testing.T) {
			s := &store{answer: fails(class)}
			u := s.uploader(1)
			add(u, 1)
			time.Sleep(time.Second)
			if tries, _, parked := s.counts(); tries != 2 || parked != 1 {
				t.Errorf("%v: %d attempts and %d parked, want 2 and 1", class, tries, parked)
			}
			u.Stop()
		})
	}
}

// Given a long backoff, when a caller begins to wait, then the next attempt
// starts within a second.
func TestUrgent_EndsBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: fails(s3put.Transient)}
		u := s.uploader(1)
		add(u, 1)
		time.Sleep(time.Hour)
		s.answers(nil)
		release := u.Urgent(upload.ForDelivery)
		defer release()
		time.Sleep(time.Second) // the last failure may just have happened
		synctest.Wait()
		if _, delivered, _ := s.counts(); delivered != 1 {
			t.Error("not delivered within a second")
		}
		u.Stop()
	})
}

// Given undelivered segments, then Stop returns each of them once.
func TestStop_ReturnsUndelivered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{takes: time.Hour} // longer than the attempt's deadline
		u := s.uploader(2)
		add(u, 1, 2, 3)
		synctest.Wait()
		began := time.Now()
		left := u.Stop()
		if len(left) != 3 || time.Since(began) != 0 {
			t.Errorf("%d left after %v, want 3 at once", len(left), time.Since(began))
		}
		add(u, 4)
		synctest.Wait()
		if tries, _, _ := s.counts(); tries != 2 {
			t.Errorf("%d attempts, want none after Stop", tries)
		}
	})
}

// Given an attempt that hangs, then it ends at its deadline.
func TestUploader_AttemptDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{takes: time.Hour}
		u := s.uploader(1)
		add(u, 1)
		time.Sleep(31 * time.Second)
		if tries, delivered, _ := s.counts(); tries != 2 || delivered != 0 {
			t.Errorf("%d attempts after 31 s, want 2: a server that hangs must be given up", tries)
		}
		u.Stop()
	})
}

// Given attempts that fail together, then they count as one failure of S3.
func TestUploader_ParallelFailuresCountOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var took time.Duration
		for range 30 {
			left := 8
			var s *store
			s = &store{takes: time.Millisecond, answer: func(uint64) error {
				s.mu.Lock()
				defer s.mu.Unlock()
				if left--; left >= 0 {
					return &s3put.Error{Class: s3put.Transient, Err: errors.New("scripted")}
				}
				return nil
			}}
			u := s.uploader(4)
			began := time.Now()
			add(u, 1, 2, 3, 4)
			for {
				time.Sleep(10 * time.Millisecond)
				if _, delivered, _ := s.counts(); delivered == 4 {
					break
				}
			}
			took += time.Since(began)
			u.Stop()
		}
		// About 2 s each; counted one by one they would be 8 failures in a
		// row, and a wait of up to 25 s.
		if took > 30*5*time.Second {
			t.Errorf("30 recoveries took %v", took)
		}
	})
}

// Given parked segments, then a probe also attempts a segment that was never
// attempted.
func TestProbe_TriesSegmentWithoutAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: func(n uint64) error {
			if n <= 4 {
				return &s3put.Error{Class: s3put.Parked, Err: errors.New("denied")}
			}
			return nil
		}}
		u := s.uploader(4)
		add(u, 1, 2, 3, 4)
		synctest.Wait()
		add(u, 5, 6, 7)
		synctest.Wait()
		if tries, delivered, _ := s.counts(); tries != 4 || delivered != 0 {
			t.Errorf("%d attempts and %d delivered: new segments are sent to a bucket that refuses", tries, delivered)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if _, delivered, _ := s.counts(); delivered != 3 {
			t.Errorf("%d delivered after one probe, want 3", delivered)
		}
		u.Stop()
	})
}

// Given a backoff since the last immediate retry, then an immediate retry is
// allowed again.
func TestUploader_ImmediateRetryAgainAfterBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		classes := []s3put.Class{s3put.Refresh, s3put.Transient, s3put.Refresh}
		s := &store{answer: func(uint64) error {
			if len(classes) == 0 {
				return nil
			}
			class := classes[0]
			classes = classes[1:]
			return &s3put.Error{Class: class, Err: errors.New("scripted")}
		}}
		u := s.uploader(1)
		add(u, 1)
		time.Sleep(time.Second)
		if _, delivered, parked := s.counts(); delivered != 1 || parked != 0 {
			t.Errorf("%d delivered, %d parked, want 1 and 0", delivered, parked)
		}
		u.Stop()
	})
}
