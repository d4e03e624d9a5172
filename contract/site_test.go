package contract

import (
	"crypto/md5"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/s3sink/s3sink/policy"
)

// The columns of the table.
const (
	double    = "s3sinktest"
	versitygw = "versitygw"
	minio     = "MinIO"
	ceph      = "Ceph"
)

// A site is one server as used by one test, with a bucket of its own and the keys
// to sign with. A field is zero if the server lacks that feature.
type site struct {
	column string
	scheme string
	url    string
	client *http.Client

	region string
	bucket string
	acl    string // ACL that lets the bucket's owner read objects
	owner  keys   // may do everything
	writer keys   // may s3:PutObject below allowed/, and nothing else
	kmsKey string

	stsURL     string
	role       string // its sessions have the permissions of writer
	externalID string // external id that the role requires
	caller     keys   // trusted by the role
	stranger   keys   // trusted by no role

	// sinkSTS is the STS endpoint of the sink. It differs from stsURL if the STS
	// is not the server's own.
	sinkSTS string

	// session returns a session of the role with the given lifetime.
	session func(t *testing.T, life time.Duration) keys

	// addBucket makes an empty bucket.
	addBucket func(t *testing.T, name string)

	// addUser adds a user without permissions. allow sets a newcomer's user
	// policy or, if ofBuckets is set, its bucket policy. allow returns an error
	// if the server refuses the policy.
	addUser   func(k keys, arn string) error
	allow     func(*testing.T, *newcomer, policy.Set) error
	ofBuckets bool

	// kmsBucket creates another bucket with kmsKey as its default encryption. It
	// returns the answer to the request that sets the encryption.
	kmsBucket func(t *testing.T) (string, answer)
}

// need is a feature that an expectation requires.
type need string

const (
	needsSTS           need = "sts"
	needsSessionPolicy need = "session policies"
	needsShortSession  need = "sessions of a second"
	needsPrefix        need = "the condition key s3:prefix"
	needsNoSTS         need = "an S3 without an STS"
	needsExpiredToken  need = "a code of its own for a session that has ended"
)

// A server is a column of the table.
type server struct {
	column string
	open   func(t *testing.T, scheme string) *site

	// lacks holds the features that the server lacks, with the reasons.
	lacks map[need]string

	// missing returns the reason why the server cannot be started here, or "". It
	// is nil if the server is built from source.
	missing func() string
}

var (
	schemes = []string{"http", "https"}

	// servers are in the order of the page.
	servers = []server{
		{
			column: double, open: openDouble,
			lacks: map[need]string{
				needsPrefix: "refuses policies with s3:prefix",
				needsNoSTS:  "its S3 is its STS too",
			},
		},
		{
			column: versitygw, open: openVersitygw,
			lacks: map[need]string{
				needsSTS:           "no AssumeRole",
				needsSessionPolicy: "no AssumeRole",
			},
		},
		{
			column: minio, open: openMinIO,
			lacks: map[need]string{
				needsShortSession: "no session shorter than 15 minutes",
				needsNoSTS:        "its S3 is its STS too",
			},
		},
		{
			column: ceph, open: openCeph, missing: cephMissing,
			lacks: map[need]string{
				needsNoSTS:        "its S3 is its STS too",
				needsExpiredToken: "answers 403 AccessDenied to a session that has ended",
			},
		},
	}
)

// shortLife is the lifetime of a session that a test lets expire.
const shortLife = 2 * time.Second

const (
	region = "eu-west-1"

	// bucketPrefix begins the name of every bucket. Policies that are written
	// before the bucket exists name the prefix.
	bucketPrefix = "contract-"
)

func newBucketName() string { return bucketPrefix + strings.ToLower(rand.Text()) }

// iamPolicy is a policy that the test writes itself.
type iamPolicy struct {
	Version   string
	Statement []statement
}

type statement struct {
	Effect    string
	Principal map[string][]string `json:",omitempty"`
	Action    []string
	Resource  []string `json:",omitempty"`
}

func (p iamPolicy) String() string {
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings always encode
	}
	return string(text)
}

// mayPut allows PutObject below a folder of the bucket.
func mayPut(bucket, folder string) iamPolicy {
	return iamPolicy{"2012-10-17", []statement{{
		Effect:   "Allow",
		Action:   []string{"s3:PutObject"},
		Resource: []string{"arn:aws:s3:::" + bucket + "/" + folder + "/*"},
	}}}
}

// createKMS creates a bucket and sets its default encryption.
func (s *site) createKMS(t *testing.T) (string, answer) {
	t.Helper()
	name := s.create(t)
	r := to(http.MethodPut, "", `<ServerSideEncryptionConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule>`+
		`<ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>`+s.kmsKey+
		`</KMSMasterKeyID></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>`).with("encryption", "")
	md := md5.Sum([]byte(r.body))
	r.header.Set("Content-MD5", base64.StdEncoding.EncodeToString(md[:]))
	r.bucket = name
	return name, s.do(t, r)
}

// create creates a bucket with the S3 API.
func (s *site) create(t *testing.T) string {
	t.Helper()
	name := newBucketName()
	s.createNamed(t, name)
	return name
}

func (s *site) createNamed(t *testing.T, name string) {
	t.Helper()
	r := to(http.MethodPut, "", "")
	r.bucket = name
	if a := s.do(t, r); a.status != http.StatusOK {
		t.Fatalf("CreateBucket: %s: %s", a, a.body)
	}
}
