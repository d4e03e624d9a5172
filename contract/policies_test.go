package contract

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/policy"
)

const aboutPolicies = `Each row has a new bucket and a new user without permissions. Then the documents of
` + "`Config.Policies`" + ` are applied. On s3sinktest, MinIO and Ceph they become the user's policy.
versitygw has no policies of users, so there they become the bucket's policy. The sink writes below
` + "`allowed/segment-logs/`" + `. "Applied without" an action means all documents without that action.

The columns show the policies that a server refuses or does not enforce. MinIO refuses policies with
` + "`s3:PutObjectAcl`" + ` or ` + "`kms:ViaService`" + `. It needs neither of them, nor ` + "`s3:PutObjectTagging`" + `. Ceph
refuses policies with KMS actions, needs none of the three, and lets a writer read its own objects.
versitygw has no KMS.

`

// A newcomer is a user without permissions, as the writer of a site with a bucket
// of its own.
type newcomer struct {
	site
	arn string
}

func (s *site) newcomer(t *testing.T) *newcomer {
	t.Helper()
	n := &newcomer{site: *s}
	n.bucket = newBucketName()
	n.acl = "" // only the plan sets one
	s.addBucket(t, n.bucket)
	n.writer = keys{id: "AKIA" + rand.Text()[:16], secret: rand.Text()}
	n.arn = userARN + strings.ToLower(n.writer.id)
	if err := s.addUser(n.writer, n.arn); err != nil {
		t.Fatal(err)
	}
	return n
}

// document returns the policy of a kind. Policies returns at most one of each kind
// for a writer that assumes no role.
func document(p policy.Set, kind policy.Kind) policy.Document {
	for _, d := range p {
		if d.Kind == kind {
			return d.Document
		}
	}
	return policy.Document{}
}

// allowByBucket sets the policy of the bucket.
func (s *site) allowByBucket(t *testing.T, n *newcomer, p policy.Set) error {
	t.Helper()
	r := to(http.MethodPut, "", document(p, policy.BucketPolicy).String()).with("policy", "")
	if a := n.do(t, r); a.status/100 != 2 {
		return fmt.Errorf("PutBucketPolicy: %s: %s", a, a.body)
	}
	return nil
}

// A plan is the configuration of a newcomer.
type plan struct {
	config func(*site, *s3sink.Config)
	setup  policy.Input
}

// setUp returns the newcomer's Config and policies. If less is not empty, the
// policies lack that action.
func (p plan) setUp(t *testing.T, n *newcomer, less string) (s3sink.Config, policy.Set) {
	t.Helper()
	cfg := n.sink(n.asWriter())
	if p.config != nil {
		p.config(&n.site, &cfg)
	}
	p.setup.Writer, p.setup.CrossAccount = n.arn, n.ofBuckets
	policies, err := cfg.Policies(p.setup)
	if err != nil {
		t.Fatal(err)
	}
	found := less == ""
	for i := range policies {
		statements := &policies[i].Document.Statement
		for j := range *statements {
			actions := &(*statements)[j].Action
			had := len(*actions)
			*actions = slices.DeleteFunc(*actions, func(a string) bool { return a == less })
			found = found || len(*actions) < had
		}
		*statements = slices.DeleteFunc(*statements, func(s policy.Statement) bool { return len(s.Action) == 0 })
	}
	if !found {
		t.Fatalf("the policies do not have %s", less)
	}
	return cfg, policies
}

// apply sets the policies, and reports whether the server accepted them. It does
// not send a policy without statements: a newcomer has no permissions anyway.
func (n *newcomer) apply(t *testing.T, p policy.Set) bool {
	t.Helper()
	kind := policy.Permissions
	if n.ofBuckets {
		kind = policy.BucketPolicy
	}
	if len(document(p, kind).Statement) == 0 {
		return true
	}
	if err := n.allow(t, n, p); err != nil {
		t.Log(err)
		return false
	}
	return true
}

const refused = "the server does not take the policy"

// applied returns a see function that runs a newcomer's sink with all policies.
func applied(p plan) func(*testing.T, *site) string {
	return func(t *testing.T, s *site) string {
		t.Helper()
		n := s.newcomer(t)
		cfg, policies := p.setUp(t, n, "")
		if !n.apply(t, policies) {
			return refused
		}
		says := n.validate(t, cfg)
		if says != "valid" {
			return says
		}
		return says + ", then " + n.run(t, cfg)
	}
}

// without returns a see function for policies that lack an action: the result of
// Validate, and the reason why uploads are parked.
func without(p plan, action string) func(*testing.T, *site) string {
	return func(t *testing.T, s *site) string {
		t.Helper()
		n := s.newcomer(t)
		cfg, policies := p.setUp(t, n, action)
		if !n.apply(t, policies) {
			return refused
		}
		says := n.validate(t, cfg)
		if says == "valid" {
			return says
		}
		return says + ", then " + n.run(t, cfg)
	}
}

// elsewhere puts objects outside the folder that the sink writes to.
func elsewhere(t *testing.T, s *site) string {
	t.Helper()
	n := s.newcomer(t)
	_, policies := plan{}.setUp(t, n, "")
	if !n.apply(t, policies) {
		return refused
	}
	var said []string
	tried := 0
	try := func(r request) {
		tried++
		said = append(said, n.do(t, r.as(n.writer)).String())
	}
	for _, key := range []string{"a", "segment-logs/a", "allowed", "allowed/a", "allowed/segment-logs", "allowed/segment-logs-2/a",
		"allowed/other/a", "allowed2/segment-logs/a", "ALLOWED/segment-logs/a", "allowed/allowed/segment-logs/a"} {
		try(put(key, hello))
	}
	other := put("allowed/segment-logs/a", hello)
	other.bucket = s.bucket
	try(other)
	if inside := n.do(t, put("allowed/segment-logs/a", hello).as(n.writer)); inside.status != http.StatusOK {
		return "inside " + inside.String()
	}
	slices.Sort(said)
	return fmt.Sprintf("%d times %s", tried, strings.Join(slices.Compact(said), " or "))
}

// reads returns a see function for a warehouse that loads with the identity of the
// sink. change may change its policies.
func reads(less string, change func(policy.Set)) func(*testing.T, *site) string {
	return func(t *testing.T, s *site) string {
		t.Helper()
		n := s.newcomer(t)
		_, policies := plan{setup: policy.Input{Warehouse: true}}.setUp(t, n, less)
		if change != nil {
			change(policies)
		}
		if !n.apply(t, policies) {
			return refused
		}
		const key = "allowed/segment-logs/a/1/b.gz"
		list := func(prefix string) request {
			return to(http.MethodGet, "", "").with("list-type", "2").with("prefix", prefix)
		}
		return fmt.Sprintf("put %s, get %s, list %s, list all %s",
			n.do(t, put(key, hello).as(n.writer)), n.do(t, get(key).as(n.writer)),
			n.do(t, list(path.Dir(key)+"/").as(n.writer)), n.do(t, list("").as(n.writer)))
	}
}

// listObjects makes the mistake of RudderStack's document: it allows s3:ListBucket
// on the objects, not on the bucket.
func listObjects(p policy.Set) {
	for _, d := range p {
		for i := range d.Document.Statement {
			if s := &d.Document.Statement[i]; slices.Contains(s.Action, "s3:ListBucket") {
				s.Resource, s.Condition = []string{s.Resource[0] + "/*"}, nil
			}
		}
	}
}

const (
	denied     = "PutObjectDenied, 403 AccessDenied"
	andParked  = denied + ", then parked: 403 AccessDenied"
	andWritten = "valid, then " + everything
)

var (
	withACL  = plan{config: func(_ *site, c *s3sink.Config) { c.ACL = "bucket-owner-full-control" }}
	withTags = plan{config: func(_ *site, c *s3sink.Config) { c.Tags = map[string]string{"team": "data"} }}
	withKey  = plan{config: func(s *site, c *s3sink.Config) { c.Encryption = s3sink.SSEKMS(s.kmsKey) }}
)

var thePolicies = []expectation{
	{
		name: "nothing is applied",
		aws:  denied,
		see: func(t *testing.T, s *site) string {
			n := s.newcomer(t)
			return n.validate(t, n.sink(n.asWriter()))
		},
	},
	{
		name:    "applied",
		aws:     andWritten,
		differs: differs{ceph: "valid, then the bucket's owner gets 403 AccessDenied"},
		see:     applied(plan{}),
	},
	{
		name: "applied without s3:PutObject",
		aws:  andParked,
		see:  without(plan{}, "s3:PutObject"),
	},
	{
		name: "applied: put anywhere else",
		aws:  "11 times 403 AccessDenied",
		see:  elsewhere,
	},
	{
		name:    "an ACL: applied",
		aws:     andWritten,
		see:     applied(withACL),
		differs: differs{minio: refused},
	},
	{
		name:    "an ACL: applied without s3:PutObjectAcl",
		aws:     andParked,
		see:     without(withACL, "s3:PutObjectAcl"),
		differs: differs{versitygw: "valid", minio: "valid", ceph: "valid"},
	},
	{
		name:    "tags: applied",
		aws:     andWritten,
		differs: differs{ceph: "valid, then the bucket's owner gets 403 AccessDenied"},
		see:     applied(withTags),
	},
	{
		name:    "tags: applied without s3:PutObjectTagging",
		aws:     andParked,
		see:     without(withTags, "s3:PutObjectTagging"),
		differs: differs{minio: "valid", ceph: "valid"},
	},
	{
		name:    "a KMS key: applied",
		aws:     andWritten + ", aws:kms",
		see:     applied(withKey),
		differs: differs{versitygw: andWritten, minio: refused, ceph: refused},
	},
	{
		name:    "a KMS key: applied without kms:GenerateDataKey",
		aws:     andParked,
		see:     without(withKey, "kms:GenerateDataKey"),
		differs: differs{versitygw: "valid", minio: "valid", ceph: "valid"},
	},
	{
		name:  "a warehouse: applied",
		needs: []need{needsPrefix},
		aws:   "put 200, get 200, list 200, list all 403 AccessDenied",
		see:   reads("", nil),
	},
	{
		name:    "a warehouse: applied without s3:GetObject",
		needs:   []need{needsPrefix},
		aws:     "put 200, get 403 AccessDenied, list 200, list all 403 AccessDenied",
		differs: differs{ceph: "put 200, get 200, list 200, list all 403 AccessDenied"},
		see:     reads("s3:GetObject", nil),
	},
	{
		name:  "a warehouse: applied without s3:ListBucket",
		needs: []need{needsPrefix},
		aws:   "put 200, get 200, list 403 AccessDenied, list all 403 AccessDenied",
		see:   reads("s3:ListBucket", nil),
	},
	{
		name:    "a warehouse: s3:ListBucket on the objects, as in RudderStack's document",
		aws:     "put 200, get 200, list 403 AccessDenied, list all 403 AccessDenied",
		see:     reads("", listObjects),
		differs: differs{versitygw: refused, minio: "put 200, get 200, list 200, list all 200"},
	},
}
