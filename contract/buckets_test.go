package contract

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

var buckets = []expectation{
	{
		name: "put into a bucket that does not exist",
		aws:  "404 NoSuchBucket",
		see: one(func(*site) request {
			r := put("a", hello)
			r.bucket = "contract-no-such-bucket"
			return r
		}),
	},
	{
		name:    "HEAD of a bucket",
		aws:     "200, eu-west-1 is right",
		differs: differs{ceph: "200"},
		see: func(t *testing.T, s *site) string {
			return s.headBucket(t, to(http.MethodHead, "", ""))
		},
	},
	{
		name:    "HEAD of a bucket that does not exist",
		aws:     "404",
		differs: differs{minio: "404, eu-west-1 is right"},
		see: func(t *testing.T, s *site) string {
			r := to(http.MethodHead, "", "")
			r.bucket = "contract-no-such-bucket"
			return s.headBucket(t, r)
		},
	},
	{
		name:    "HEAD of a bucket with s3:PutObject",
		aws:     "403, eu-west-1 is right",
		differs: differs{ceph: "403"},
		see: func(t *testing.T, s *site) string {
			return s.headBucket(t, to(http.MethodHead, "", "").as(s.writer))
		},
	},
	{
		name:    "HEAD of a bucket without credentials",
		aws:     "403, eu-west-1 is right",
		differs: differs{ceph: "404"},
		see: func(t *testing.T, s *site) string {
			r := to(http.MethodHead, "", "")
			r.anonymous = true
			return s.headBucket(t, r)
		},
	},
	{
		name: "list, in order",
		aws:  "200, all 7 in order of their bytes",
		see: func(t *testing.T, s *site) string {
			want := []string{"list/-", "list/A", "list/a", "list/a~", "list/b/a", "list/ä", "list/日本語"}
			s.putAll(t, want)
			pages := s.list(t, "list/", 1000)
			got := slices.Concat(pages...)
			if !slices.Equal(got, want) {
				return fmt.Sprintf("200, %q", got)
			}
			return fmt.Sprintf("200, all %d in order of their bytes", len(got))
		},
	},
	{
		name: "list, in pages of 3",
		aws:  "3 + 3 + 1 keys",
		see: func(t *testing.T, s *site) string {
			var keys []string
			for i := range 7 {
				keys = append(keys, fmt.Sprintf("pages/%d", i))
			}
			s.putAll(t, keys)
			var sizes []string
			var got []string
			for _, page := range s.list(t, "pages/", 3) {
				sizes = append(sizes, fmt.Sprint(len(page)))
				got = append(got, page...)
			}
			if !slices.Equal(got, keys) {
				return fmt.Sprintf("%q", got)
			}
			return strings.Join(sizes, " + ") + " keys"
		},
	},
	{
		name: "list, with a prefix that is not a folder",
		aws:  "2 keys",
		see: func(t *testing.T, s *site) string {
			s.putAll(t, []string{"prefix/ab1", "prefix/ab2", "prefix/b"})
			return fmt.Sprintf("%d keys", len(slices.Concat(s.list(t, "prefix/a", 1000)...)))
		},
	},
	{
		name: "list, without a match",
		aws:  "0 keys",
		see: func(t *testing.T, s *site) string {
			return fmt.Sprintf("%d keys", len(slices.Concat(s.list(t, "no-such-prefix/", 1000)...)))
		},
	},
	{
		name: "list a bucket that does not exist",
		aws:  "404 NoSuchBucket",
		see: one(func(*site) request {
			r := to(http.MethodGet, "", "").with("list-type", "2")
			r.bucket = "contract-no-such-bucket"
			return r
		}),
	},
}

func (s *site) headBucket(t *testing.T, r request) string {
	t.Helper()
	a := s.do(t, r)
	return a.String() + regionTold(a)
}

func (s *site) putAll(t *testing.T, keys []string) {
	t.Helper()
	for _, key := range keys {
		if a := s.do(t, put(key, hello)); a.status != http.StatusOK {
			t.Fatalf("put %s: %s", key, a)
		}
	}
}

// list lists all keys with a prefix, page by page.
func (s *site) list(t *testing.T, prefix string, most int) [][]string {
	t.Helper()
	var pages [][]string
	r := to(http.MethodGet, "", "").with("list-type", "2").with("prefix", prefix).
		with("max-keys", fmt.Sprint(most)).with("encoding-type", "url")
	for {
		a := s.do(t, r)
		var shape struct {
			IsTruncated           bool
			NextContinuationToken string
			Contents              []struct{ Key string }
		}
		if err := xml.Unmarshal([]byte(a.body), &shape); a.status != http.StatusOK || err != nil {
			t.Fatalf("list %s: %s: %v: %s", prefix, a, err, a.body)
		}
		var page []string
		for _, o := range shape.Contents {
			key, err := url.QueryUnescape(o.Key)
			if err != nil {
				t.Fatal(err)
			}
			page = append(page, key)
		}
		pages = append(pages, page)
		if !shape.IsTruncated {
			return pages
		}
		if len(pages) > 100 {
			t.Fatal("the list does not end")
		}
		r = r.with("continuation-token", shape.NextContinuationToken)
	}
}
