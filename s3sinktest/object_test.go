package s3sinktest_test

import (
	"bytes"
	"compress/gzip"
	"slices"
	"testing"

	"github.com/s3sink/s3sink/s3sinktest"
)

func TestLines(t *testing.T) {
	t.Parallel()
	pack := func(texts ...string) []byte {
		var buf bytes.Buffer
		for _, text := range texts {
			w := gzip.NewWriter(&buf)
			w.Write([]byte(text))
			w.Close()
		}
		return buf.Bytes()
	}
	for _, test := range []struct {
		name string
		body []byte
		want []string
		ok   bool
	}{
		{"lines", pack("{}\n{\"a\":1}\n"), []string{"{}", `{"a":1}`}, true},
		{"nothing", pack(""), nil, true},
		{"two members", pack("{}\n", "{}\n"), nil, false},
		{"no end", pack("{}\n{}"), nil, false},
		{"rest", append(pack("{}\n"), 0), nil, false},
		{"cut", pack("{}\n")[:20], nil, false},
		{"no gzip", []byte("{}\n"), nil, false},
	} {
		got, err := s3sinktest.Object{Key: "key", Body: test.body}.Lines()
		if !slices.Equal(got, test.want) || (err == nil) != test.ok {
			t.Errorf("%s: got %q, %v", test.name, got, err)
		}
	}
}
