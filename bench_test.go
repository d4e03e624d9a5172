package s3sink_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/s3sink/s3sink"
)

// call returns a Segment-like call of about 1.2 KB, a fifth of it ids that do
// not compress, as in a web shop's traffic.
func call(r *rand.Rand) s3sink.Event {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	paths := []string{"/", "/cart", "/checkout/shipping", "/products/linen-shirt", "/search?q=boots&page=2"}
	return s3sink.Event{
		Type:        s3sink.TypeTrack,
		MessageID:   "ajs-next-" + randomID(r, 32),
		AnonymousID: hex(r, 36),
		UserID:      fmt.Sprint("user-", r.IntN(1_000_000)),
		Event:       pick("Product Viewed", "Product Added", "Cart Viewed", "Order Completed", "Coupon Applied"),
		Properties: map[string]any{
			"product_id": hex(r, 24), "sku": fmt.Sprint("SKU-", r.IntN(10_000)), "name": pick("Linen Shirt", "Walking Boots", "Rain Jacket"),
			"category": pick("Apparel", "Shoes", "Outdoor"), "price": float64(r.IntN(20_000)) / 100, "quantity": 1 + r.IntN(5),
			"currency": pick("USD", "EUR", "GBP"), "coupon": pick("", "SUMMER", "WELCOME10"), "position": r.IntN(50),
		},
		Context: map[string]any{
			"ip": fmt.Sprintf("203.0.113.%d", r.IntN(256)), "locale": pick("en-US", "de-DE", "fr-FR"), "timezone": pick("Europe/Berlin", "America/New_York"),
			"userAgent": pick("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36",
				"Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1"),
			"sessionId": randomID(r, 40), "gclid": randomID(r, 60),
			"library":  map[string]any{"name": "analytics.js", "version": "2.11.1"},
			"page":     map[string]any{"url": "https://shop.example.com" + pick(paths...), "path": pick(paths...), "referrer": "https://www.google.com/", "title": "Example Shop"},
			"campaign": map[string]any{"source": pick("newsletter", "google", "partner"), "medium": pick("email", "cpc"), "name": fmt.Sprint("spring-", r.IntN(40))},
		},
		Integrations: map[string]any{"All": true},
	}
}

// randomID returns n characters of an id that does not compress.
func randomID(r *rand.Rand, n int) string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}

// corpus is the lines of n calls, made once.
var corpus = sync.OnceValue(func() (lines [][]byte) {
	r := rand.New(rand.NewPCG(2026, 11))
	for range 20_000 {
		line, err := json.Marshal(call(r))
		if err != nil {
			panic(err)
		}
		lines = append(lines, line)
	}
	return lines
})

func openBenchmark(b *testing.B, change func(*s3sink.Config)) *s3sink.Sink {
	cfg := new(nullStore).config()
	if change != nil {
		change(&cfg)
	}
	return open(b, cfg)
}

// BenchmarkTrack measures the cost of one call for its caller. Compression runs
// at the same time on the same cores. The sink is emptied between bursts, so no
// call waits for room.
func BenchmarkTrack(b *testing.B) {
	lines := corpus()
	r := rand.New(rand.NewPCG(1, 1))
	event := call(r)
	var asMap map[string]any
	if err := json.Unmarshal(lines[0], &asMap); err != nil {
		b.Fatal(err)
	}
	for _, bm := range []struct {
		name  string
		track func(*s3sink.Sink, int) error
	}{
		{"line", func(s *s3sink.Sink, i int) error { return s.TrackLine(lines[i%len(lines)]) }},
		{"raw", func(s *s3sink.Sink, i int) error { return s.Track(json.RawMessage(lines[i%len(lines)])) }},
		{"map", func(s *s3sink.Sink, i int) error { return s.Track(asMap) }},
		{"event", func(s *s3sink.Sink, i int) error { return s.Track(&event) }},
	} {
		for _, goroutines := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/goroutines=%d", bm.name, goroutines), func(b *testing.B) {
				sink := openBenchmark(b, nil)
				b.SetBytes(int64(len(lines[0])))
				b.ReportAllocs()
				b.ResetTimer()
				for done := 0; done < b.N; {
					burst := min(b.N-done, 40_000)
					var wg sync.WaitGroup
					for g := range goroutines {
						wg.Go(func() {
							for i := g; i < burst; i += goroutines {
								if err := bm.track(sink, i); err != nil {
									b.Error(err)
									return
								}
							}
						})
					}
					wg.Wait()
					done += burst
					b.StopTimer()
					if err := sink.Flush(b.Context()); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			})
		}
	}
}

// BenchmarkPipeline measures the whole way of a line, from TrackLine to a PUT
// that a null store accepts. It compares this with a bare klauspost gzip of the
// same bytes at the same level on the same cores. The two take turns; of-gzip
// is the ratio of their median speeds, and 1 is the limit.
func BenchmarkPipeline(b *testing.B) {
	for _, partitions := range []int{1, 1000} {
		for _, level := range []int{2, s3sink.DefaultCompressionLevel} {
			b.Run(fmt.Sprintf("partitions=%d/level=%d", partitions, level), func(b *testing.B) {
				lines := corpus()
				var total int64
				for _, line := range lines {
					total += int64(len(line)) + 1
				}
				b.SetBytes(total)
				var ours, bare []time.Duration
				var ratio float64
				for b.Loop() {
					began := time.Now()
					ratio = pipeline(b, lines, partitions, level)
					ours = append(ours, time.Since(began))
					b.StopTimer()
					began = time.Now()
					bareGzip(b, lines, level)
					bare = append(bare, time.Since(began))
					b.StartTimer()
				}
				slices.Sort(ours)
				slices.Sort(bare)
				b.ReportMetric(float64(bare[len(bare)/2])/float64(ours[len(ours)/2]), "of-gzip")
				b.ReportMetric(ratio, "ratio")
			})
		}
	}
}

func pipeline(b *testing.B, lines [][]byte, partitions, level int) (ratio float64) {
	sink := openBenchmark(b, func(c *s3sink.Config) { c.CompressionLevel = level })
	sources := make([]*s3sink.Source, partitions)
	for i := range sources {
		src, err := sink.Source(fmt.Sprint("source-", i))
		if err != nil {
			b.Fatal(err)
		}
		sources[i] = src
	}
	producers := runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for i := p; i < len(lines); i += producers {
				if err := sources[i%partitions].TrackLineContext(b.Context(), lines[i]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	mustClose(b, sink)
	st := sink.Stats()
	if st.Delivered != int64(len(lines)) {
		b.Fatalf("%d delivered of %d", st.Delivered, len(lines))
	}
	return float64(st.RawBytes) / float64(st.ObjectBytes)
}

// bareGzip compresses the lines in one stream for each core.
func bareGzip(b *testing.B, lines [][]byte, level int) {
	lanes := runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	for l := range lanes {
		wg.Go(func() {
			w, err := gzip.NewWriterLevel(io.Discard, level)
			if err != nil {
				b.Error(err)
				return
			}
			for _, line := range lines[l*len(lines)/lanes : (l+1)*len(lines)/lanes] {
				w.Write(line)
				w.Write([]byte{'\n'})
			}
			if err := w.Close(); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
}
