package s3sink_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
)

// BenchmarkSpool is the whole way of a line with a SpoolDir and SyncInterval,
// beside memory mode; of-memory is the ratio of their median speeds.
func BenchmarkSpool(b *testing.B) {
	lines := corpus()
	var total int64
	for _, line := range lines {
		total += int64(len(line)) + 1
	}
	const rounds = 20 // the last sync and upload weigh little then
	b.SetBytes(rounds * total)
	run := func(dir string) (time.Duration, float64) {
		began := time.Now()
		sink := openBenchmark(b, func(c *s3sink.Config) { c.SpoolDir = dir })
		producers := runtime.GOMAXPROCS(0)
		var wg sync.WaitGroup
		for p := range producers {
			wg.Go(func() {
				for i := p; i < rounds*len(lines); i += producers {
					if err := sink.TrackLineContext(b.Context(), lines[i%len(lines)]); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		mustClose(b, sink)
		st := sink.Stats()
		return time.Since(began), float64(st.RawBytes) / float64(st.ObjectBytes)
	}
	var ours, memory []time.Duration
	var ratio, memoryRatio float64
	for b.Loop() {
		dir := filepath.Join(b.TempDir(), "spool")
		took, r := run(dir)
		ours, ratio = append(ours, took), r
		b.StopTimer()
		took, r = run("")
		memory, memoryRatio = append(memory, took), r
		b.StartTimer()
	}
	slices.Sort(ours)
	slices.Sort(memory)
	b.ReportMetric(float64(memory[len(memory)/2])/float64(ours[len(ours)/2]), "of-memory")
	b.ReportMetric(ratio, "ratio")
	b.ReportMetric(memoryRatio, "memory-ratio")
}

// BenchmarkSyncEach is Track that waits for the disk, beside a bare file to
// which the same callers write the same bytes, one write and one sync for all
// who wait; of-bare is the ratio of their speeds.
func BenchmarkSyncEach(b *testing.B) {
	lines := corpus()
	for _, bm := range []struct{ callers, sources int }{{1, 1}, {64, 1}, {64, 64}} {
		b.Run(fmt.Sprintf("callers=%d/sources=%d", bm.callers, bm.sources), func(b *testing.B) {
			dir := b.TempDir()
			sink := openBenchmark(b, func(c *s3sink.Config) {
				c.SpoolDir, c.Durability = filepath.Join(dir, "spool"), s3sink.SyncEach
			})
			sources := make([]*s3sink.Source, bm.sources)
			for i := range sources {
				src, err := sink.Source(fmt.Sprint("source-", i))
				if err != nil {
					b.Fatal(err)
				}
				sources[i] = src
			}
			each := 2000 / bm.callers
			if bm.callers > 1 {
				each = 200
			}
			callers := func(do func(c, i int) error) time.Duration {
				began := time.Now()
				var wg sync.WaitGroup
				for c := range bm.callers {
					wg.Go(func() {
						for i := range each {
							if err := do(c, c*each+i); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				return time.Since(began)
			}
			bare := newGroupCommit(b, filepath.Join(dir, "bare"))
			var ours, theirs time.Duration
			for b.Loop() {
				ours += callers(func(c, i int) error {
					return sources[c%bm.sources].TrackLine(lines[i%len(lines)])
				})
				b.StopTimer()
				theirs += callers(func(_, i int) error { return bare.write(lines[i%len(lines)]) })
				b.StartTimer()
			}
			b.ReportMetric(float64(b.N*bm.callers*each)/ours.Seconds(), "events/s")
			b.ReportMetric(float64(theirs)/float64(ours), "of-bare")
		})
	}
}

// groupCommit writes to one file, and one sync serves all who wait: the first of
// them makes it, and wakes the others.
type groupCommit struct {
	file *os.File
	mu   sync.Mutex
	busy bool
	next *group
}

type group struct {
	buf  []byte
	done chan struct{}
	lead chan struct{} // whoever gets it makes the sync
	err  error
}

func newGroup() *group { return &group{done: make(chan struct{}), lead: make(chan struct{}, 1)} }

func newGroupCommit(b *testing.B, path string) *groupCommit {
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return &groupCommit{file: f, next: newGroup()}
}

func (g *groupCommit) write(line []byte) error {
	g.mu.Lock()
	mine := g.next
	mine.buf = append(append(mine.buf, line...), '\n')
	if !g.busy {
		g.busy = true
		mine.lead <- struct{}{}
	}
	g.mu.Unlock()
	select {
	case <-mine.done:
		return mine.err
	case <-mine.lead:
	}
	g.mu.Lock()
	g.next = newGroup()
	g.mu.Unlock()
	_, err := g.file.Write(mine.buf)
	mine.err = errors.Join(err, dataSync(g.file))
	close(mine.done)
	g.mu.Lock()
	if g.busy = len(g.next.buf) > 0; g.busy {
		g.next.lead <- struct{}{}
	}
	g.mu.Unlock()
	return mine.err
}

// BenchmarkRecover reads what a process has left, sealed or not, with a store
// that takes everything. New is the time until the sink takes events.
func BenchmarkRecover(b *testing.B) {
	lines := corpus()
	dir := filepath.Join(b.TempDir(), "spool")
	settings := func(c *s3sink.Config) { c.SpoolDir, c.CompressionLevel, c.MaxObjectBytes = dir, 1, 2<<20 }
	ended, cancel := context.WithCancel(b.Context())
	cancel()
	sink := openBenchmark(b, func(c *s3sink.Config) {
		settings(c)
		c.HTTPClient = &http.Client{Transport: noStore{}}
	})
	for range 10 {
		for _, line := range lines {
			if err := sink.TrackLineContext(b.Context(), line); err != nil {
				b.Fatal(err)
			}
		}
	}
	left := (*s3sink.CloseError)(nil)
	if err := sink.Close(ended); !errors.As(err, &left) || left.Left == 0 {
		b.Fatalf("Close: %v", err)
	}
	size := sink.Stats().SpoolBytes
	b.SetBytes(size)
	var ready time.Duration
	var peak uint64
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		began := time.Now()
		sink := openBenchmark(b, func(c *s3sink.Config) {
			settings(c)
			c.HTTPClient = &http.Client{Transport: noStore{}}
		})
		ready += time.Since(began)
		for sink.Stats().Recovered < left.Left {
			time.Sleep(time.Millisecond)
			runtime.ReadMemStats(&after)
			peak = max(peak, after.HeapAlloc-min(before.HeapAlloc, after.HeapAlloc))
		}
		b.StopTimer()
		sink.Close(ended)
		b.StartTimer()
	}
	b.ReportMetric(float64(ready.Microseconds())/float64(b.N)/1000, "ms-until-New")
	b.ReportMetric(float64(peak)/(1<<20), "peak-MB")
	b.ReportMetric(float64(size)/(1<<20), "spool-MB")
}

// noStore is a network that is down.
type noStore struct{}

func (noStore) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.ErrUnsupported }
