package contract

import (
	"slices"
	"strings"
	"sync"
	"testing"
)

// An expectation is one line of the table: the answer that AWS documents, and the
// known answers of servers that deviate.
type expectation struct {
	name string

	// aws is the answer that AWS documents. If AWS does not document it, note
	// says so and names the source of the answer.
	aws  string
	note string

	// see sends the requests and returns the result in the format of aws. Its
	// object keys begin with a word that no other expectation uses.
	see func(*testing.T, *site) string

	needs   []need  // what see needs of the site
	differs differs // the stated deviations
}

// differs holds answers other than AWS's, by column, or by column and scheme
// ("MinIO/https"). The only deviation that the double may have is an error for a
// feature that its documentation lists as unsupported.
type differs map[string]string

// expected returns the answer that a site must give.
func (e expectation) expected(column, scheme string) string {
	for _, place := range []string{column + "/" + scheme, column} {
		if answer, ok := e.differs[place]; ok {
			return answer
		}
	}
	return e.aws
}

// stated returns the table cell of a server. applies is false if the expectation
// needs a feature that the server lacks.
func (e expectation) stated(s server, scheme string) (answer string, applies bool) {
	for _, n := range e.needs {
		if why, ok := s.lacks[n]; ok {
			return "n/a: " + why, false
		}
	}
	return e.expected(s.column, scheme), true
}

// one returns a see function that sends a single request.
func one(r func(*site) request) func(*testing.T, *site) string {
	return func(t *testing.T, s *site) string {
		t.Helper()
		return s.do(t, r(s)).String()
	}
}

// A section is a part of the table. says names the source of its expectations.
type section struct {
	title, says  string
	expectations []expectation
	intro        string // text of the page before the table
}

// list holds every expectation of s3sink, in the order of the page.
var list = []section{
	{title: "Objects", says: "AWS", expectations: objects},
	{title: "Checksums", says: "AWS", expectations: checksums},
	{title: "Keys", says: "AWS", expectations: keyNames},
	{title: "Headers", says: "AWS", expectations: headers},
	{title: "Create only", says: "AWS", expectations: createOnly},
	{title: "Identities", says: "AWS", expectations: who, intro: aboutWho},
	{title: "Permissions", says: "AWS", expectations: permissions},
	{title: "Buckets and lists", says: "AWS", expectations: buckets},
	{title: "STS", says: "AWS", expectations: stsList, intro: aboutSTS},
	{title: "The sink", says: "s3sink", expectations: theSink, intro: aboutSink},
	{title: "Validate", says: "s3sink", expectations: validations, intro: aboutValidate},
	{title: "The policies", says: "s3sink", expectations: thePolicies, intro: aboutPolicies},
}

// Given every server and scheme, then each answer is the stated one, and
// docs/contract.md shows the answers.
func TestContract(t *testing.T) {
	checkList(t)
	seen := newSeen()
	t.Run("servers", func(t *testing.T) { // ends after its parallel subtests
		for _, scheme := range schemes {
			for _, server := range servers {
				t.Run(server.column+"/"+scheme, func(t *testing.T) {
					t.Parallel()
					checkServer(t, server, scheme, seen)
				})
			}
		}
	})
	checkPage(t, seen)
}

func checkServer(t *testing.T, server server, scheme string, seen *seen) {
	if server.missing != nil && server.missing() != "" {
		seen.state(server, scheme)
		skip(t, server.column+": "+server.missing())
	}
	s := server.open(t, scheme)
	for _, tr := range transcripts {
		if server.column == tr.column && scheme == "http" {
			t.Run("transcript", func(t *testing.T) {
				t.Parallel()
				seen.setTranscript(tr.column, transcript(t, s, tr.flags, tr.applied))
			})
		}
	}
	t.Run("answers", func(t *testing.T) {
		for _, part := range list {
			for _, e := range part.expectations {
				t.Run(e.name, func(t *testing.T) {
					t.Parallel()
					check(t, server, s, e, seen)
				})
			}
		}
	})
}

func check(t *testing.T, server server, s *site, e expectation, seen *seen) {
	want, applies := e.stated(server, s.scheme)
	if !applies {
		seen.set(e, s.column, s.scheme, want)
		return
	}
	got := e.see(t, s)
	seen.set(e, s.column, s.scheme, got)
	switch {
	case got == want:
	case got == e.aws:
		t.Errorf("got %q, as AWS answers; the list states %q: take the deviation out", got, want)
	case want == e.aws:
		t.Errorf("got %q, want %q", got, want)
	default:
		t.Errorf("got %q, want %q, or %q, as AWS answers", got, want, e.aws)
	}
}

// checkList checks the list itself.
func checkList(t *testing.T) {
	t.Helper()
	names := make(map[string]bool)
	var places []string
	for _, s := range servers {
		places = append(places, s.column, s.column+"/http", s.column+"/https")
	}
	for _, part := range list {
		for _, e := range part.expectations {
			if names[e.name] {
				t.Errorf("%q is there twice", e.name)
			}
			names[e.name] = true
			for place, answer := range e.differs {
				if strings.HasPrefix(place, double) && !strings.HasPrefix(answer, "501 ") && !strings.HasPrefix(answer, "405 ") {
					t.Errorf("%q: the double may refuse to do it, and not answer %q", e.name, answer)
				}
				if !slices.Contains(places, place) {
					t.Errorf("%q: there is no server %q", e.name, place)
				}
				if answer == e.aws {
					t.Errorf("%q: %s answers as AWS does, which is no deviation", e.name, place)
				}
			}
		}
	}
}

// seen holds the answers of every site.
type seen struct {
	mu          sync.Mutex
	answers     map[cell]string
	transcripts map[string]string // by column
}

type cell struct{ name, column, scheme string }

func newSeen() *seen {
	return &seen{answers: make(map[cell]string), transcripts: make(map[string]string)}
}

func (x *seen) set(e expectation, column, scheme, answer string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.answers[cell{e.name, column, scheme}] = answer
}

// state records the stated answers of a server that cannot be started here, so
// that the page does not depend on the machine that runs the tests.
func (x *seen) state(s server, scheme string) {
	for _, part := range list {
		for _, e := range part.expectations {
			answer, _ := e.stated(s, scheme)
			x.set(e, s.column, scheme, answer)
		}
	}
}

func (x *seen) setTranscript(column, text string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.transcripts[column] = text
}
