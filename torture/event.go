package main

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// region is the region of the bucket.
const region = "eu-west-1"

func sourceID(number int) string { return fmt.Sprintf("source-%d", number) }

// wideLife is the number of the first life whose events are long and hardly
// compress: they fill a volume.
const wideLife = 1 << 31

// line returns the n-th event that a source tracks in a life. All its bytes follow
// from the arguments, so that the oracle detects changed bytes.
func line(seed uint64, source int, life, n uint32) []byte {
	rng := rand.New(rand.NewPCG(seed^uint64(source)<<56, uint64(life)<<32|uint64(n)))
	text := rng.IntN(300)
	if rng.IntN(200) == 0 {
		text = rng.IntN(30_000)
	}
	if life >= wideLife {
		noise := make([]byte, 1000+rng.IntN(4000))
		for i := range noise {
			noise[i] = byte(rng.Uint32())
		}
		return fmt.Appendf(nil, `{"source":%d,"life":%d,"n":%d,"text":"%s"}`, source, life, n, base64.StdEncoding.EncodeToString(noise))
	}
	return fmt.Appendf(nil, `{"source":%d,"life":%d,"n":%d,"check":%d,"text":"%s"}`,
		source, life, n, rng.Uint32(), strings.Repeat(string(rune('a'+rng.IntN(26))), text))
}

// upTo returns a random time below d.
func upTo(rng *rand.Rand, d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }
