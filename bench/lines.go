package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
)

// Every line begins with its number in 16 hex digits. A benchmark makes a few
// lines and tracks each many times; the number makes each event unique.
const (
	lineHead   = `{"messageId":"`
	numberSize = 16
)

// setNumber overwrites the number of a line.
func setNumber(line []byte, n int64) {
	const digits = "0123456789abcdef"
	for i := numberSize - 1; i >= 0; i-- {
		line[len(lineHead)+i] = digits[n&15]
		n >>= 4
	}
}

// numberOf returns the number of a line.
func numberOf(line []byte) (int64, error) {
	if len(line) < len(lineHead)+numberSize || !bytes.HasPrefix(line, []byte(lineHead)) {
		return 0, fmt.Errorf("the line has no number: %.40q", line)
	}
	return strconv.ParseInt(string(line[len(lineHead):len(lineHead)+numberSize]), 16, 64)
}

// calls returns n Segment-like calls of about 1.1 KB, like the traffic of a web
// shop. Ids that do not compress are a fifth of each. The benchmarks in the
// module's root (bench_test.go) use calls of the same kind.
func calls(n int) [][]byte {
	r := rand.New(rand.NewPCG(2026, 11))
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	paths := []string{"/", "/cart", "/checkout/shipping", "/products/linen-shirt", "/search?q=boots&page=2"}
	lines := make([][]byte, n)
	for i := range lines {
		lines[i] = fmt.Appendf(nil, lineHead+`%016x-%s","type":"track","anonymousId":"%s","userId":"user-%d","event":"%s",`+
			`"properties":{"product_id":"%s","sku":"SKU-%d","name":"%s","category":"%s","price":%.2f,"quantity":%d,"currency":"%s","coupon":"%s","position":%d},`+
			`"context":{"ip":"203.0.113.%d","locale":"%s","timezone":"%s","userAgent":"%s","sessionId":"%s","gclid":"%s",`+
			`"library":{"name":"analytics.js","version":"2.11.1"},`+
			`"page":{"url":"https://shop.example.com%s","path":"%s","referrer":"https://www.google.com/","title":"Example Shop"},`+
			`"campaign":{"source":"%s","medium":"%s","name":"spring-%d"}},"integrations":{"All":true},`+
			`"timestamp":"2026-11-22T12:%02d:%02d.%03dZ","originalTimestamp":"2026-11-22T12:00:00.000Z","sentAt":"2026-11-22T12:00:00.000Z","receivedAt":"2026-11-22T12:00:00.000Z","version":2}`,
			i, randomID(r, 16), randomID(r, 36), r.IntN(1_000_000), pick("Product Viewed", "Product Added", "Cart Viewed", "Order Completed", "Coupon Applied"),
			randomID(r, 24), r.IntN(10_000), pick("Linen Shirt", "Walking Boots", "Rain Jacket"), pick("Apparel", "Shoes", "Outdoor"),
			float64(r.IntN(20_000))/100, 1+r.IntN(5), pick("USD", "EUR", "GBP"), pick("", "SUMMER", "WELCOME10"), r.IntN(50),
			r.IntN(256), pick("en-US", "de-DE", "fr-FR"), pick("Europe/Berlin", "America/New_York"),
			pick("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36",
				"Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1"),
			randomID(r, 40), randomID(r, 60), pick(paths...), pick(paths...),
			pick("newsletter", "google", "partner"), pick("email", "cpc"), r.IntN(40), r.IntN(60), r.IntN(60), r.IntN(1000))
	}
	return lines
}

// noise returns n lines of the given length with random characters from an
// alphabet of 64. gzip reduces them to three quarters at every level.
func noise(n, length int) [][]byte {
	r := rand.New(rand.NewPCG(2026, 12))
	lines := make([][]byte, n)
	for i := range lines {
		head := fmt.Appendf(nil, lineHead+`%016x","noise":"`, i)
		lines[i] = append(append(head, randomID(r, length-len(head)-2)...), `"}`...)
	}
	return lines
}

// randomID returns n characters of an id that does not compress.
func randomID(r *rand.Rand, n int) string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-"
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}
