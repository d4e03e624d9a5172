package spool_test

import (
	"flag"
	"math/rand/v2"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

var every = flag.Int("every", 9, "TestEveryOperation_CrashOrError looks at one of so many operations; 1: at all")

// story is two fixed lives. One operation of them fails or ends the process. An
// fsync fails in each life, and the second life recovers the first.
type story struct {
	w    *world
	fail int // number of the operation, over both lives; negative: none
	kind crashfs.Kind
	kill bool // lives end by a kill instead of a power cut
	ops  int
}

func (s *story) tell(t *testing.T) {
	for range 2 {
		syncs := 0
		s.w.fault = func(op crashfs.Op) error {
			if op.Call == crashfs.CallSync {
				if syncs++; syncs == 4 {
					return syscall.EIO
				}
			}
			return nil
		}
		before := s.ops
		if at := s.fail - before; s.fail >= before {
			s.w.disk.FailAt(at, s.kind)
		}
		l, err := s.w.start(t)
		if err == nil {
			s.chapter(t, l)
		}
		disk := s.w.disk
		s.w.end(l, s.kill)
		s.ops += disk.Ops()
		if disk.Tripped() && s.kind == crashfs.Stop {
			break
		}
	}
	s.w.fault = nil
	s.w.last(t)
}

// chapter leaves blocks, frames and segments in every state, in several files.
func (s *story) chapter(t *testing.T, l *life) {
	for round := range 4 {
		for p := range partitions {
			l.track(p)
			l.track(p)
		}
		l.commit()
		for p := range partitions {
			l.track(p)
			l.cut(p)
			if p != round {
				l.frame(t, p)
			}
		}
		l.commit()
		l.sealOpen(round % partitions)
		synctest.Wait() // the seal has requested a commit
		l.put(t, round == 2)
	}
	l.commit()
}

// Given two fixed lives, when any operation of them fails in any way or is the
// last one, then every acknowledged event is delivered once and in order.
func TestEveryOperation_CrashOrError(t *testing.T) {
	t.Parallel()
	tell := func(s story, seed uint64) (ops int) {
		synctest.Test(t, func(t *testing.T) {
			s.w = newWorld(rand.New(rand.NewPCG(seed, 4)), seed)
			s.w.fileSize = 700
			s.w.note("operation %d: %v, seed %d", s.fail, s.kind, seed)
			s.tell(t)
		})
		return s.ops
	}
	ops := tell(story{fail: -1}, 1)
	runs := 0
	for k := 0; k < ops; k += *every {
		for image := range uint64(6) {
			tell(story{fail: k, kind: crashfs.Stop, kill: image == 0}, image)
			runs++
		}
		for _, kind := range crashfs.Kinds() {
			for image := range uint64(2) {
				tell(story{fail: k, kind: kind, kill: image == 0}, image)
				runs++
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d operations, one of %d: %d endings and failures", ops, *every, runs)
}
