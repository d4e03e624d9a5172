package upload_test

import (
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink/internal/s3put"
	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/upload"
)

// unreadable fails for odd segments.
func unreadable(errno syscall.Errno) func(uint64) error {
	return func(n uint64) error {
		if n%2 == 0 {
			return nil
		}
		return &s3put.Error{Class: s3put.Unreadable, Err: &spool.ReadError{Err: errno}}
	}
}

// setAside returns the segments that are not retried.
func (s *store) setAside() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.damaged))
}

// Given a segment that cannot be read from the disk, then it is attempted a few
// times and set aside. Other segments are delivered: S3 has not failed.
func TestUnreadable_SetAside(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: unreadable(syscall.EIO)}
		u := s.uploader(1)
		add(u, 1, 2, 3, 4, 5, 6)
		synctest.Wait()
		if _, delivered, _ := s.counts(); delivered != 3 {
			t.Errorf("%d delivered at once, want 3", delivered)
		}
		for range 20 { // attempts before the end of the wait are not counted
			release := u.Urgent(upload.ForDelivery)
			time.Sleep(time.Second)
			release()
		}
		if got := s.setAside(); len(got) > 0 {
			t.Errorf("%v are given up at once", got)
		}
		time.Sleep(2 * time.Hour)
		left := u.Stop()
		if got := s.setAside(); !slices.Equal(got, []uint64{1, 3, 5}) || len(left) > 0 {
			t.Errorf("set aside %v, left %d", got, len(left))
		}
	})
}

// Given a segment that cannot be read from the disk, then it is set aside after an
// hour, with a backoff between the attempts.
func TestUnreadable_AttemptsInAnHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: unreadable(syscall.EIO)}
		u := s.uploader(1)
		add(u, 1)
		time.Sleep(time.Hour - time.Second)
		if tries, _, _ := s.counts(); tries < 5 || len(s.setAside()) != 0 {
			t.Errorf("before: %d attempts, set aside %v; want some and none", tries, s.setAside())
		}
		time.Sleep(2 * time.Minute)
		u.Stop()
		if len(s.setAside()) != 1 {
			t.Errorf("set aside %v, want one", s.setAside())
		}
	})
}

// Given a read error that may pass, then the segment is retried until it can be
// read.
func TestUnreadable_Temporarily(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: unreadable(syscall.EMFILE)}
		u := s.uploader(1)
		add(u, 1)
		time.Sleep(time.Hour)
		s.answers(nil)
		time.Sleep(2 * time.Minute)
		if tries, delivered, _ := s.counts(); delivered != 1 || len(s.setAside()) > 0 || tries < 60 {
			t.Errorf("%d delivered after %d attempts, set aside %v", delivered, tries, s.setAside())
		}
		u.Stop()
	})
}
