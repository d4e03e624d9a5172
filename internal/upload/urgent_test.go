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

// puts is a bucket whose test decides the result of each attempt.
type puts struct {
	mu        sync.Mutex
	began     []*put
	running   int
	most      int
	attempts  []upload.Attempt
	delivered []upload.Delivery
	parked    []upload.Refusal
}

// put is an attempt that waits until the test ends it.
type put struct {
	order upload.Order
	end   chan error
	exist bool // the answer is that the key exists
	deaf  bool // ignores its ctx
}

func (p *puts) put(ctx context.Context, order upload.Order) (s3put.Result, error) {
	order.Progress()
	a := &put{order: order, end: make(chan error, 1)}
	p.mu.Lock()
	p.began = append(p.began, a)
	p.running++
	p.most = max(p.most, p.running)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.running--
	}()
	gone := ctx.Done()
	for {
		select {
		case err := <-a.end:
			return s3put.Result{Existed: a.exist}, err
		case <-gone:
			if !a.deaf {
				return s3put.Result{}, context.Cause(ctx)
			}
			gone = nil
		}
	}
}

func (p *puts) uploader(concurrency int) *upload.Uploader {
	return upload.New(upload.Settings{
		Put: p.put, Concurrency: concurrency, MinRate: 64 << 10, RetryParked: 5 * time.Minute,
		Attempted: func(a upload.Attempt) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.attempts = append(p.attempts, a)
		},
		Delivered: func(d upload.Delivery) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.delivered = append(p.delivered, d)
		},
		Parked: func(r upload.Refusal) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.parked = append(p.parked, r)
		},
		Damaged: func(upload.Refusal) {},
	})
}

// began returns the start times of the attempts with indexes in [from, to).
func (s *store) began(from, to int) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.times[from:to])
}

// atOnce returns the highest number of parallel attempts.
func (s *store) atOnce() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most
}

// wait lets d pass and returns the attempts that have begun.
func (p *puts) wait(d time.Duration) []*put {
	time.Sleep(d)
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.began)
}

// Given an outage whose failures have raised the backoff to its limit, when a
// caller waits, then each failure is followed by an attempt within a second;
// and when the last caller leaves, the long backoff is back.
func TestUrgent_CapsBackoffWhileCallersWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: fails(s3put.Transient)}
		u := s.uploader(4)
		add(u, 1, 2, 3)
		time.Sleep(time.Hour)
		first, second := u.Urgent(upload.ForDelivery), u.Urgent(upload.ForDelivery)
		began, _, _ := s.counts()
		time.Sleep(time.Minute)
		first()
		time.Sleep(time.Minute)
		second()
		ended, _, _ := s.counts()
		times := s.began(began, ended)
		for i := 1; i < len(times); i++ {
			if waited := times[i].Sub(times[i-1]); waited > time.Second {
				t.Errorf("waited %v while somebody waits", waited)
			}
		}
		if n := ended - began; n < 120 || n > 400 {
			t.Errorf("%d attempts in 2 minutes, want one after about half a second each", n)
		}
		time.Sleep(time.Hour)
		if calm, _, _ := s.counts(); calm-ended > 200 || s.atOnce() > 3 {
			t.Errorf("%d attempts in an hour in which nobody waits, %d at once", calm-ended, s.atOnce())
		}
		u.Stop()
	})
}

// Given many callers that wait briefly one after another, then they cause at most
// as many attempts as one caller that waits all the time.
func TestUrgent_ManyShortCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: fails(s3put.Transient)}
		u := s.uploader(4)
		add(u, 1)
		time.Sleep(time.Hour)
		before, _, _ := s.counts()
		for range 10 * 1000 {
			release := u.Urgent(upload.ForDelivery)
			time.Sleep(500 * time.Microsecond)
			release()
			time.Sleep(500 * time.Microsecond)
		}
		if n, _, _ := s.counts(); n-before > 40 {
			t.Errorf("%d attempts in 10 seconds", n-before)
		}
		u.Stop()
	})
}

// Given callers that wait for room, then a day of outage costs little more than
// without callers, and after a short outage they are served soon.
func TestUrgent_RoomBackoffFollowsOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, outage := range []time.Duration{time.Minute, 10 * time.Minute, 24 * time.Hour} {
			s := &store{answer: fails(s3put.Transient)}
			u := s.uploader(4)
			defer u.Urgent(upload.ForRoom)()
			add(u, 1, 2, 3)
			time.Sleep(outage)
			if n, _, _ := s.counts(); n > 4500 {
				t.Errorf("%d attempts in %v", n, outage)
			}
			s.answers(nil)
			time.Sleep(min(max(time.Second, outage/60), time.Minute))
			synctest.Wait()
			if _, delivered, _ := s.counts(); delivered != 3 {
				t.Errorf("%d delivered a while after %v of outage, want 3", delivered, outage)
			}
			u.Stop()
		}
	})
}

// Given an attempt that makes progress, when a caller waits, then no other
// attempt begins; one begins a second after the last progress.
func TestSpare_BeginsWithoutProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := new(puts)
		u := p.uploader(4)
		add(u, 1)
		a := p.wait(20 * time.Second)[0]
		release := u.Urgent(upload.ForDelivery)
		if n := len(p.wait(0)); n != 2 {
			t.Errorf("%d attempts, want 2: the first one hangs", n)
		}
		a.end <- nil
		add(u, 2)
		b := p.wait(0)[2]
		for range 20 {
			b.order.Progress()
			if n := len(p.wait(900 * time.Millisecond)); n != 3 {
				t.Fatalf("%d attempts, but the last one makes progress", n)
			}
		}
		all := p.wait(101 * time.Millisecond)
		if len(all) != 4 || !all[3].order.NewConnection || all[2].order.NewConnection {
			t.Errorf("%d attempts, want another one on a new connection a second after the last progress", len(all))
		}
		release()
		if n := len(p.wait(9 * time.Second)); n != 4 {
			t.Errorf("%d attempts, but nobody waits", n)
		}
		u.Stop()
	})
}

// Given two attempts of a segment, when one succeeds, then the other is cancelled.
// The segment is delivered only after the cancelled attempt has ended, because
// that attempt reads the segment.
func TestSpare_FirstSuccessCancelsTheOther(t *testing.T) {
	t.Parallel()
	for _, winner := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			p := new(puts)
			u := p.uploader(1)
			defer u.Urgent(upload.ForDelivery)()
			add(u, 1)
			all := p.wait(1001 * time.Millisecond)
			all[1-winner].deaf = true
			all[winner].exist = true
			all[winner].end <- nil
			p.wait(5 * time.Second)
			if len(p.delivered) != 0 {
				t.Error("delivered while an attempt runs")
			}
			all[1-winner].end <- context.Canceled
			p.wait(0)
			if len(p.delivered) != 1 || p.delivered[0].Attempts != 2 || !p.delivered[0].Result.Existed {
				t.Errorf("delivered %+v", p.delivered)
			}
			if len(p.attempts) != 2 || p.attempts[0].Err != nil || !errors.Is(p.attempts[1].Err, context.Canceled) || p.attempts[1].Failures != 0 {
				t.Errorf("told of %+v", p.attempts)
			}
			if left := u.Stop(); len(left) != 0 {
				t.Errorf("%d left", len(left))
			}
		})
	}
}

// Given two attempts that race for a key, when one stores the object and the other
// gets the answer that the key exists, then no answer counts as lost, in either
// order.
func TestSpare_KeyExists(t *testing.T) {
	t.Parallel()
	for _, first := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			p := new(puts)
			u := p.uploader(1)
			defer u.Urgent(upload.ForDelivery)()
			add(u, 1)
			all := p.wait(1001 * time.Millisecond)
			all[1].exist = true
			all[0].deaf, all[1].deaf = true, true
			all[first].end <- nil
			p.wait(time.Millisecond)
			all[1-first].end <- nil
			p.wait(time.Millisecond)
			if len(p.delivered) != 1 || p.delivered[0].Result.Existed {
				t.Errorf("delivered %+v, want once, and as stored", p.delivered)
			}
			u.Stop()
		})
	}
}

// Given two attempts of a segment, then a transient failure leaves the other
// one running, any other refusal settles the segment, and a success overrides
// both.
func TestSpare_ResultThatSettles(t *testing.T) {
	t.Parallel()
	transient := &s3put.Error{Class: s3put.Transient, Err: errors.New("scripted")}
	refused := &s3put.Error{Class: s3put.Parked, Err: errors.New("scripted")}
	for name, tt := range map[string]struct {
		results   [2]error
		delivered int
		parked    int
		left      int
	}{
		"failure, then success":       {[2]error{transient, nil}, 1, 0, 0},
		"refusal, then success":       {[2]error{refused, nil}, 1, 0, 0},
		"refusal, then cut off":       {[2]error{refused, context.Canceled}, 0, 1, 1},
		"failure, then refusal":       {[2]error{transient, refused}, 0, 1, 1},
		"two failures, tried again":   {[2]error{transient, transient}, 0, 0, 1},
		"success, then a refusal":     {[2]error{nil, refused}, 1, 0, 0},
		"success, then a cut failure": {[2]error{nil, transient}, 1, 0, 0},
	} {
		for _, first := range []int{0, 1} {
			synctest.Test(t, func(t *testing.T) {
				p := new(puts)
				u := p.uploader(1)
				release := u.Urgent(upload.ForDelivery)
				add(u, 1)
				all := p.wait(1001 * time.Millisecond)
				release() // no third attempt
				all[0].deaf, all[1].deaf = true, true
				all[first].end <- tt.results[0]
				p.wait(0)
				all[1-first].end <- tt.results[1]
				p.wait(0)
				if left := u.Stop(); len(p.delivered) != tt.delivered || len(p.parked) != tt.parked || len(left) != tt.left {
					t.Errorf("%s, attempt %d first: %d delivered, %d parked, %d left; want %d, %d and %d",
						name, first+1, len(p.delivered), len(p.parked), len(left), tt.delivered, tt.parked, tt.left)
				}
				if len(p.attempts) != 2 {
					t.Errorf("%s: told of %d attempts, want 2", name, len(p.attempts))
				}
			})
		}
	}
}

// Given S3 that answers slowly, when a caller waits, then the first attempt is
// not cancelled, and few spare attempts run in parallel.
func TestSpare_SlowAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{takes: 8 * time.Second}
		u := s.uploader(4)
		defer u.Urgent(upload.ForDelivery)()
		add(u, 1, 2, 3, 4)
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if tries, delivered, _ := s.counts(); delivered != 4 || tries > 4+8 || s.atOnce() > 5 {
			t.Errorf("%d delivered after 8 s, %d attempts, %d at once; want 4, 12 at most, and 5 at most", delivered, tries, s.atOnce())
		}
		u.Stop()
	})
}

// Given one object whose attempts hang and a single slot, when a caller waits,
// then the other objects are delivered.
func TestSpare_HangingObjectBlocksNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := new(puts)
		u := p.uploader(1)
		defer u.Urgent(upload.ForDelivery)()
		add(u, 1, 2, 3, 4, 5, 6)
		for range 80 {
			for _, a := range p.wait(100 * time.Millisecond) {
				if a.order.Segment.Sequence != 1 && len(a.end) == 0 {
					a.end <- nil
				}
			}
		}
		if len(p.delivered) != 5 || p.most > 2 {
			t.Errorf("%d delivered after 8 s, %d attempts at once; want 5, and 2 at most", len(p.delivered), p.most)
		}
		if left := u.Stop(); len(left) != 1 {
			t.Errorf("%d left, want the one that hangs", len(left))
		}
	})
}

// Given two attempts of a segment, then Stop ends both and returns the segment
// once.
func TestSpare_StopJoinsBoth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := new(puts)
		u := p.uploader(2)
		defer u.Urgent(upload.ForDelivery)()
		add(u, 1, 2, 3)
		p.wait(1001 * time.Millisecond)
		left := u.Stop()
		if p.running != 0 || p.most != 3 {
			t.Errorf("%d attempts run after Stop, %d ran at once; want 0 and 3", p.running, p.most)
		}
		slices.SortFunc(left, func(a, b *spool.Segment) int { return int(a.Sequence) - int(b.Sequence) })
		if len(left) != 3 || left[0].Sequence != 1 || left[2].Sequence != 3 {
			t.Errorf("left %v, want three segments", left)
		}
	})
}

// Given S3 that answers SlowDown, when callers wait, then one attempt runs at a
// time.
func TestUrgent_ThrottlingReducesConcurrency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: fails(s3put.Transient), takes: 20 * time.Millisecond}
		u := s.uploader(16)
		defer u.Urgent(upload.ForDelivery)()
		for n := range uint64(100) {
			add(u, n+1)
		}
		time.Sleep(10 * time.Second)
		s.mu.Lock()
		s.most = s.running
		before := len(s.attempts)
		s.mu.Unlock()
		time.Sleep(10 * time.Second)
		if tries, _, _ := s.counts(); s.atOnce() > 1 || tries-before > 40 {
			t.Errorf("%d attempts in 10 s, %d at once; want 40 at most, and 1", tries-before, s.atOnce())
		}
		u.Stop()
	})
}
