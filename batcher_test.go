package s3sink_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// hex returns n hex digits that compress to about half.
func hex(r *rand.Rand, n int) string {
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "%016x", r.Uint64())
	}
	return b.String()[:n]
}

// Given load on all cores, then every object except the last is at least nine
// tenths full, and none exceeds the limit by a byte.
func TestMaxObjectBytes(t *testing.T) { // not parallel: it sets GOMAXPROCS
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, cores := range []int{1, 2, 64} {
		for _, limit := range []int64{5_000, 100_000, 1_000_000} {
			t.Run(fmt.Sprintf("cores=%d/limit=%d", cores, limit), func(t *testing.T) {
				runtime.GOMAXPROCS(cores)
				server, cfg := s3sinktest.New(t)
				cfg.MaxObjectBytes = limit
				cfg.MaxEventBytes = int(limit / 20)
				sink := open(t, cfg)
				r := rand.New(rand.NewPCG(1, uint64(limit)))
				var sent int64
				events := 0
				for sent < 12*limit {
					line := fmt.Sprintf(`{"n":%d,"x":"%s"}`, events, hex(r, 20+r.IntN(int(limit/100))))
					sent += int64(len(line))
					events++
					if err := sink.TrackLineContext(t.Context(), []byte(line)); err != nil {
						t.Fatal(err)
					}
				}
				mustClose(t, sink)
				all := objects(t, server, s3sinktest.Bucket)
				if len(all) < 4 {
					t.Fatalf("only %d objects", len(all))
				}
				n := 0
				for i, o := range all {
					if size := int64(len(o.Body)); size > limit || i < len(all)-1 && size < limit*9/10 {
						t.Errorf("object %d of %d has %d bytes of %d", i+1, len(all), size, limit)
					}
					for _, line := range o.lines {
						if !strings.HasPrefix(line, fmt.Sprintf(`{"n":%d,`, n)) {
							t.Fatalf("object %d: %.20s is not event %d", i, line, n)
						}
						n++
					}
				}
				if n != events {
					t.Errorf("%d events stored of %d", n, events)
				}
			})
		}
	}
}

// The largest allowed event fits into the smallest allowed object.
func TestMaxObjectBytes_LargestEventInSmallestObject(t *testing.T) {
	t.Parallel()
	server, cfg := s3sinktest.New(t)
	cfg.MaxEventBytes = 1000
	cfg.MaxObjectBytes = 1
	_, err := s3sink.New(t.Context(), cfg)
	var wrong *s3sink.ConfigError
	if !errors.As(err, &wrong) || wrong.Field != "MaxObjectBytes" {
		t.Fatalf("got %v, want an error for MaxObjectBytes", err)
	}
	if _, err := fmt.Sscan(wrong.Want, &cfg.MaxObjectBytes); err != nil { // "1051 to …"
		t.Fatal(err)
	}
	sink := open(t, cfg)
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		line := make([]byte, 1000) // printable noise hardly compresses
		for i := range line {
			line[i] = byte('0' + r.IntN(60))
		}
		copy(line, `{"x":"`)
		copy(line[len(line)-2:], `"}`)
		if err := sink.TrackLine([]byte(strings.ReplaceAll(string(line), `\`, "/"))); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, sink)
	for _, o := range objects(t, server, s3sinktest.Bucket) {
		if int64(len(o.Body)) > cfg.MaxObjectBytes {
			t.Errorf("%d bytes, the limit is %d", len(o.Body), cfg.MaxObjectBytes)
		}
	}
}

func TestMaxObjectEvents(t *testing.T) {
	t.Parallel()
	for _, limit := range []int64{1, 7, 1000} {
		server, cfg := s3sinktest.New(t)
		cfg.MaxObjectEvents = limit
		sink := open(t, cfg)
		total := 3*limit + 1
		for i := range total {
			mustTrack(t, sink, map[string]any{"n": i, "x": strings.Repeat("y", 900)})
		}
		mustClose(t, sink)
		var got []int
		for _, o := range objects(t, server, s3sinktest.Bucket) {
			got = append(got, len(o.lines))
		}
		want := []int{int(limit), int(limit), int(limit), 1}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("limit %d: objects of %v events, want %v", limit, got, want)
		}
	}
}

// Given an idle object, then it is closed MaxObjectAge after its first event,
// not after its last event, and not before.
func TestMaxObjectAge(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.MaxObjectAge = time.Minute
		sink := open(t, cfg)
		stored := func() int { return len(server.Objects(s3sinktest.Bucket)) }
		for round := range 3 {
			for range 5 {
				mustTrack(t, sink, struct{}{})
				time.Sleep(10 * time.Second)
			}
			time.Sleep(9 * time.Second)
			synctest.Wait()
			if n := stored(); n != round {
				t.Errorf("%d objects after 59 s of round %d", n, round)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if n := stored(); n != round+1 {
				t.Errorf("%d objects after 60 s of round %d", n, round)
			}
			time.Sleep(10 * time.Minute) // nothing more: no empty objects
			if n := stored(); n != round+1 {
				t.Errorf("%d objects after an idle while in round %d", n, round)
			}
		}
		mustClose(t, sink)
	})
}

// Given an object that was closed by size, then the age of the next object
// counts from its own first event, neither earlier nor later.
func TestMaxObjectAge_AfterObjectClosedBySize(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.MaxObjectAge = time.Minute
		cfg.MaxEventBytes = 10_000
		cfg.MaxObjectBytes = 20_000
		sink := open(t, cfg)
		r := rand.New(rand.NewPCG(5, 6))
		for range 6 { // the fifth does not fit
			mustTrack(t, sink, map[string]string{"x": hex(r, 9000)})
			time.Sleep(8 * time.Second)
		}
		time.Sleep(time.Hour)
		all := objects(t, server, s3sinktest.Bucket)
		if len(all) != 2 {
			t.Fatalf("%d objects, want 2", len(all))
		}
		first, err := time.Parse(time.RFC3339, all[1].Metadata["s3sink-first-received"])
		if err != nil {
			t.Fatal(err)
		}
		if age := all[1].LastModified.Sub(first); age != time.Minute {
			t.Errorf("the second object was stored %v after its first event, want 1m", age)
		}
		mustClose(t, sink)
	})
}

// Given events around midnight and a clock that goes back, then no object has
// events of two days, no object is sealed at midnight, and the events of a
// source stay in order across objects.
func TestReceivedDay(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.MaxObjectAge = time.Hour
		sink := open(t, cfg)
		time.Sleep(24*time.Hour - 3*time.Second) // 2000-01-01 23:59:57
		for i := range 6 {
			mustTrack(t, sink, map[string]int{"n": i})
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		if n := len(server.Objects(s3sinktest.Bucket)); n != 0 {
			t.Errorf("%d objects sealed at midnight", n)
		}
		time.Sleep(time.Hour)
		all := objects(t, server, s3sinktest.Bucket)
		if len(all) != 2 {
			t.Fatalf("%d objects, want 2", len(all))
		}
		for i, day := range []int64{946684800000, 946771200000} {
			if want := fmt.Sprintf("segment-logs/%s/%d/", s3sinktest.SourceID, day); !strings.HasPrefix(all[i].Key, want) {
				t.Errorf("key %s, want it below %s", all[i].Key, want)
			}
			if want := fmt.Sprint([]string{fmt.Sprintf(`{"n":%d}`, 3*i), fmt.Sprintf(`{"n":%d}`, 3*i+1), fmt.Sprintf(`{"n":%d}`, 3*i+2)}); fmt.Sprint(all[i].lines) != want {
				t.Errorf("lines %v, want %v", all[i].lines, want)
			}
		}
		mustClose(t, sink)
	})
}

// numbered is an event with its position in the order of the test.
type numbered struct {
	Worker int    `json:"w"`
	N      int    `json:"n"`
	Pad    string `json:"pad,omitempty"`
}

// Given events of one source that happen one after another, then they are
// stored in that order, within an object and across objects. A baton passed
// between goroutines orders their events too.
func TestOrder(t *testing.T) {
	t.Parallel()
	server, cfg := s3sinktest.New(t)
	cfg.MaxEventBytes = 2000
	cfg.MaxObjectBytes = 30_000 // many objects
	cfg.MaxMemory = 4 << 20
	sink := open(t, cfg)
	const workers, each, passes = 16, 1500, 4000
	pads := make([]string, 64)
	r := rand.New(rand.NewPCG(7, 8))
	for i := range pads {
		pads[i] = hex(r, 10*i)
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for n := range each {
				if err := sink.TrackContext(t.Context(), numbered{w, n, pads[(w*n)%len(pads)]}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	baton := make(chan int, 1)
	baton <- 0
	for range 4 {
		wg.Go(func() {
			for n := range baton {
				if n == passes {
					close(baton)
					return
				}
				if err := sink.TrackContext(t.Context(), numbered{workers, n, pads[n%len(pads)]}); err != nil {
					t.Error(err)
				}
				baton <- n + 1
			}
		})
	}
	wg.Wait()
	mustClose(t, sink)
	all := objects(t, server, s3sinktest.Bucket)
	next := make([]int, workers+1)
	lastKey := ""
	for _, o := range all {
		if uuidOf(o.Key) <= uuidOf(lastKey) {
			t.Fatalf("sequence %d has key %s after %s", o.sequence, o.Key, lastKey)
		}
		lastKey = o.Key
		for _, line := range o.lines {
			var e numbered
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			if e.N != next[e.Worker] {
				t.Fatalf("object %d: worker %d: event %d where %d is due", o.sequence, e.Worker, e.N, next[e.Worker])
			}
			next[e.Worker]++
		}
	}
	for w, n := range next {
		if want := map[bool]int{true: passes, false: each}[w == workers]; n != want {
			t.Errorf("worker %d: %d events, want %d", w, n, want)
		}
	}
	if len(all) < 20 {
		t.Errorf("only %d objects: too few for the test to mean much", len(all))
	}
}

// uuidOf returns the UUID in a key.
func uuidOf(key string) string {
	key = strings.TrimSuffix(key, ".gz")
	return key[max(0, len(key)-36):]
}

// Given an object that was closed by size, then MaxObjectEvents counts only the
// events of the open object.
func TestMaxObjectEvents_AfterObjectClosedBySize(t *testing.T) {
	t.Parallel()
	server, cfg := s3sinktest.New(t)
	cfg.MaxEventBytes = 2000
	cfg.MaxObjectBytes = 20_000
	cfg.MaxObjectEvents = 100 // some 30 events fit by size
	sink := open(t, cfg)
	for i := range 500 {
		if err := sink.TrackLineContext(t.Context(), noise(uint64(i), 1000)); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, sink)
	all := objects(t, server, s3sinktest.Bucket)
	for i, o := range all[:len(all)-1] {
		if len(o.Body) < 18_000 {
			t.Errorf("object %d of %d has %d events and %d bytes: closed by events that are not in it", i+1, len(all), len(o.lines), len(o.Body))
		}
	}
}
