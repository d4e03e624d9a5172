package s3sink

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// shelf is a bucket that outlives processes. At random it answers 503, or
// stores an object and loses the answer.
type shelf struct {
	t    *testing.T
	kind bool // no random failures
	shut bool // every PUT gets 503

	mu      sync.Mutex
	rng     *rand.Rand
	objects map[string][]byte
	order   []string // keys
}

func (s *shelf) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	luck := s.rng.IntN(10)
	if s.kind {
		luck = 2
	}
	if luck == 0 || s.shut {
		return &http.Response{StatusCode: http.StatusServiceUnavailable, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	}
	key := r.URL.Path
	if before, ok := s.objects[key]; !ok {
		s.objects[key] = body
		s.order = append(s.order, key)
	} else if !bytes.Equal(before, body) {
		s.t.Errorf("%s has other bytes than before", key)
	}
	if luck == 1 {
		return nil, io.ErrUnexpectedEOF // stored, but the answer is lost
	}
	return &http.Response{StatusCode: http.StatusOK, Header: stored(), Body: http.NoBody, Request: r}, nil
}

// kindShelf returns an empty shelf without random failures.
func kindShelf(t *testing.T) *shelf {
	return &shelf{t: t, rng: rand.New(rand.NewPCG(1, 1)), objects: map[string][]byte{}, kind: true}
}

// shelfConfig returns a Config for a sink that writes to the shelf.
func shelfConfig(bucket *shelf) Config {
	return Config{
		Bucket: "shelf", SourceID: "a", Region: "us-east-1", Credentials: AccessKeys("AKIA", "secret", ""),
		HTTPClient: &http.Client{Transport: bucket}, AWS: &aws.Config{}, Logger: slog.New(slog.DiscardHandler),
		Durability: SyncInterval, CompressionLevel: 1, MaxObjectAge: 3 * time.Second, MaxObjectEvents: 7,
	}
}

// lives runs several sinks on one disk that crash, and a last sink that is
// closed. Then it compares the objects with the results of Track.
func lives(t *testing.T, seed uint64, durability Durability) {
	rng := rand.New(rand.NewPCG(seed, 2))
	bucket := &shelf{t: t, rng: rand.New(rand.NewPCG(seed, 3)), objects: map[string][]byte{}}
	disk := crashfs.New(seed)
	acked := map[string]bool{}
	next := map[string]int{}
	start := func() *Sink {
		sink, err := New(t.Context(), shelfConfig(bucket))
		if err != nil {
			t.Fatal(err)
		}
		sink.cfg.Durability = durability // New accepts SyncEach only with a SpoolDir
		if err := sink.startSpool(disk.Dir()); err != nil {
			return nil
		}
		return sink
	}
	for range 1 + rng.IntN(3) {
		if rng.IntN(3) == 0 {
			kinds := crashfs.Kinds()
			disk.FailAt(rng.IntN(60), kinds[rng.IntN(len(kinds))])
		}
		if rng.IntN(2) == 0 {
			disk.FailAt(rng.IntN(120), crashfs.Stop)
		}
		sink := start()
		for range rng.IntN(80) {
			if sink == nil {
				break
			}
			id := string(rune('a' + rng.IntN(3)))
			src, err := sink.Source(id)
			if err != nil {
				t.Fatal(err)
			}
			line := fmt.Sprintf(`{"src":"%s","n":%d,"text":"%s"}`, id, next[id], strings.Repeat("y", rng.IntN(300)))
			next[id]++
			if src.TrackLine([]byte(line)) == nil && durability == SyncEach {
				acked[line] = true
			}
			if rng.IntN(5) == 0 {
				time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond)
			}
		}
		disk.Stop()
		if rng.IntN(2) == 0 {
			disk = disk.Kill()
		} else {
			disk = disk.Crash(rng)
		}
		if sink != nil {
			dead, cancel := context.WithCancel(t.Context())
			cancel()
			sink.Close(dead)
		}
	}
	sink := start()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if err := sink.Close(ctx); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	bucket.check(t, seed, acked)
	if left, err := disk.Dir().List(); err != nil || len(left) > 0 {
		t.Errorf("seed %d: left behind %v, %v", seed, left, err)
	}
}

// lines returns the lines of all objects, in the order of their keys.
func (s *shelf) lines(t *testing.T) (all []string) {
	t.Helper()
	for _, key := range slices.Sorted(maps.Keys(s.objects)) {
		r, err := gzip.NewReader(bytes.NewReader(s.objects[key]))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")...)
	}
	return all
}

func (s *shelf) check(t *testing.T, seed uint64, acked map[string]bool) {
	seen := map[string]bool{}
	last := map[byte]int{}
	for _, line := range s.lines(t) {
		var n int
		src := line[len(`{"src":"`)]
		if _, err := fmt.Sscanf(line[len(`{"src":"a",`):], `"n":%d`, &n); err != nil {
			t.Fatalf("seed %d: line %q: %v", seed, line, err)
		}
		if seen[line] {
			t.Errorf("seed %d: twice: %.40s", seed, line)
		}
		if at, ok := last[src]; ok && n < at {
			t.Errorf("seed %d: %c/%d is behind %d", seed, src, n, at)
		}
		seen[line], last[src] = true, n
	}
	for line := range acked {
		if !seen[line] {
			t.Errorf("seed %d: lost: %.40s", seed, line)
		}
	}
}

// Given a process that is killed at any operation, then every event that Track
// acknowledged with SyncEach is in exactly one object, no event is in two
// objects, and the order holds.
func TestSinkSurvivesCrashes(t *testing.T) {
	t.Parallel()
	sinks := 0
	defer func() { t.Logf("%d histories", sinks) }()
	for _, durability := range []Durability{SyncEach, SyncInterval} {
		for seed := range uint64(100) {
			synctest.Test(t, func(t *testing.T) { lives(t, seed+1, durability) })
			if sinks++; t.Failed() {
				return
			}
		}
	}
}
