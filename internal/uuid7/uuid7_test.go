package uuid7

import (
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"
)

// Given more UUIDs than one millisecond can count, when they are generated, then each
// is of version 7 and greater than the previous one.
func TestNew_Version7AndRising(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	last := ""
	for range 20_000 { // far more than one millisecond's counter holds
		u := New()
		if !form.MatchString(u) {
			t.Fatalf("%s is not a version 7 UUID", u)
		}
		if u <= last {
			t.Fatalf("%s after %s", u, last)
		}
		last = u
	}
}

// Given eight goroutines, when they generate UUIDs, then all differ, and each
// goroutine sees them rise.
func TestNew_ManyGoroutines(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var all []string
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var mine []string
			for range 5000 {
				mine = append(mine, New())
			}
			if !slices.IsSorted(mine) {
				t.Error("not rising within a goroutine")
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
		})
	}
	wg.Wait()
	slices.Sort(all)
	if n := len(slices.Compact(all)); n != 40_000 {
		t.Errorf("%d different ones of 40000", n)
	}
}

// Given a source with a lower bound ahead of the clock, when it generates UUIDs, then
// they count up from the bound, and New without the source follows the clock.
func TestSource_ClockGoesBack(t *testing.T) {
	t.Parallel()
	var before Source
	before.Now = func() time.Time { return time.Now().AddDate(80, 0, 0) }
	first := before.New()
	var s Source
	s.Raise(before.Last())
	s.Raise(1) // does not lower it
	last := first
	for range 10_000 {
		u := s.New()
		if u <= last {
			t.Fatalf("%s after %s", u, last)
		}
		last = u
	}
	if u := New(); u >= first {
		t.Errorf("%s is not by the clock", u)
	}
	if last[:6] != first[:6] {
		t.Errorf("%s is far from %s", last, first)
	}
}

// Given two sources with the same last UUID, as after the loss of a record of the
// last one, when each generates a UUID, then these have one time and differ.
func TestSource_SameTime(t *testing.T) {
	t.Parallel()
	last := Source{Now: func() time.Time { return time.Now().AddDate(80, 0, 0) }}
	last.New()
	var a, b Source
	a.Raise(last.Last())
	b.Raise(last.Last())
	if u, v := a.New(), b.New(); u == v || a.Last() != b.Last() || u[:18] != v[:18] {
		t.Errorf("%s and %s, want different UUIDs of one time", u, v)
	}
}

// Given a clock that goes back, when ticks are taken, then they rise.
func TestTick_ClockGoesBack(t *testing.T) {
	now := time.Now().Add(time.Hour) // ahead of the other tests' clock
	first := tick(now, 0xffff)
	second := tick(now.Add(-time.Minute), 0)
	third := tick(now, 0)
	if first >= second || second >= third {
		t.Errorf("%x, %x, %x do not rise", first, second, third)
	}
}
