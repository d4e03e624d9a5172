package contract

import (
	"fmt"
	"strings"
	"testing"
)

var keyNames = []expectation{
	{
		name: "a key of 1,024 bytes",
		aws:  stored,
		see: func(t *testing.T, s *site) string {
			return s.roundTrip(t, put(longKey(1024), hello))
		},
	},
	{
		name:    "a key of 1,025 bytes",
		aws:     "400 KeyTooLongError",
		differs: differs{versitygw: "200", ceph: "400 InvalidObjectName"},
		see:     one(func(*site) request { return put(longKey(1025), hello) }),
	},
	{
		name: "a key of every character that s3sink writes",
		aws:  stored,
		see: func(t *testing.T, s *site) string {
			return s.roundTrip(t, put("bytes/AZaz09.-_~=/day=2026-11-22/~2f~C3~A4/1-2_3.json.gz", hello))
		},
	},
	{
		name: "a key with spaces, quotes and signs",
		aws:  stored,
		see: func(t *testing.T, s *site) string {
			return s.roundTrip(t, put(`signs/a b+c&d@e:f,g;h!i(j)k*l'm"n%o%2Fp$q?r#s`, hello))
		},
	},
	{
		name: "a key beyond ASCII",
		aws:  stored,
		see: func(t *testing.T, s *site) string {
			return s.roundTrip(t, put("unicode/Grüße/日本語/🙂", hello))
		},
	},
	{
		name:    "a key with an empty folder name",
		aws:     stored,
		differs: differs{minio: "400 XMinioInvalidObjectName"},
		see: func(t *testing.T, s *site) string {
			return s.roundTrip(t, put("twice//a", hello))
		},
	},
	{
		name:    "a key that ends in a slash",
		aws:     stored,
		differs: differs{versitygw: "400 DirectoryObjectContainsData"},
		see: func(t *testing.T, s *site) string {
			return s.roundTrip(t, put("slash/a/", hello))
		},
	},
	{
		name:    "a key below another object's key",
		aws:     "200, then " + stored,
		differs: differs{versitygw: "200, then 409 ObjectParentIsFile"},
		see: func(t *testing.T, s *site) string {
			first := s.do(t, put("below/a", hello))
			return fmt.Sprintf("%s, then %s", first, s.roundTrip(t, put("below/a/b", hello)))
		},
	},
}

// longKey returns a key of n bytes. No folder in it is longer than a file name may
// be.
func longKey(n int) string {
	return strings.Repeat("long-key/", n/9+1)[:n-1] + "k"
}
