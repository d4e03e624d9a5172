package s3sinktest

import (
	"cmp"
	"fmt"
	"slices"
)

// BucketSettings are what the owner of a bucket has decided. The zero value is
// a new bucket's.
type BucketSettings struct {
	// Owner is the account that the bucket belongs to. A request that names
	// another in x-amz-expected-bucket-owner is refused with 403 AccessDenied.
	//
	// With an Owner, identities of other accounts need an Allow in Policy as
	// well as in their own. Without one the bucket is [AccountID]'s, and takes
	// every identity for one of its own account.
	Owner string

	// Policy is the bucket policy, a JSON document. An explicit Deny wins over
	// all that other policies allow. Empty means none.
	Policy string

	// Encryption is what objects get when their requests do not say: AES256,
	// aws:kms or aws:kms:dsse. The default is AES256, as it is of S3.
	// KMSKeyID is the key: an ARN, or an id or alias of the account that sends
	// the request. Empty means that account's aws/s3.
	Encryption string
	KMSKeyID   string
	BucketKey  bool

	// Ownership is the bucket's Object Ownership. The default is
	// BucketOwnerEnforced, where every ACL but bucket-owner-full-control is
	// refused with 400 AccessControlListNotSupported:
	// https://docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html
	Ownership string
}

const ownerEnforced = "BucketOwnerEnforced"

// place is a bucket without its objects: its settings and its policy.
type place struct {
	BucketSettings
	region string
	policy *policy
}

type bucket struct {
	place
	objects map[string]storedObject
}

// CreateBucket adds an empty bucket. An empty region means [DefaultRegion]. A
// bucket that exists stays as it is.
func (s *Server) CreateBucket(name, region string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buckets[name] == nil {
		s.buckets[name] = &bucket{
			place:   place{region: cmp.Or(region, DefaultRegion)},
			objects: make(map[string]storedObject),
		}
	}
}

// ConfigureBucket replaces the settings of a bucket. It panics when there is no
// such bucket, and when it does not understand them: an unknown condition in a
// policy, for example, would otherwise allow or deny by a guess.
func (s *Server) ConfigureBucket(name string, settings BucketSettings) {
	p := mustPolicy("bucket "+name, settings.Policy, parseResourcePolicy)
	if !slices.Contains([]string{"", sseS3, sseKMS, sseDSSE}, settings.Encryption) ||
		!slices.Contains([]string{"", ownerEnforced, "BucketOwnerPreferred", "ObjectWriter"}, settings.Ownership) ||
		settings.KMSKeyID != "" && settings.Encryption != sseKMS && settings.Encryption != sseDSSE {
		panic(fmt.Sprintf("s3sinktest: settings of bucket %s: %+v", name, settings))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.mustBucketLocked(name)
	b.BucketSettings, b.policy = settings, p
}

// MoveBucket puts a bucket in another region with all its objects, as if it had
// been deleted there and made here. It panics when there is no such bucket.
func (s *Server) MoveBucket(name, region string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustBucketLocked(name).region = region
}

func (s *Server) mustBucketLocked(name string) *bucket {
	b := s.buckets[name]
	if b == nil {
		panic("s3sinktest: there is no bucket " + name)
	}
	return b
}

func (s *Server) place(name string) (place, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[name]
	if b == nil {
		return place{}, false
	}
	return b.place, true
}

func (p place) owner() string { return cmp.Or(p.Owner, AccountID) }

func (p place) arn(name string) string { return "arn:" + partitionOf(p.region) + ":s3:::" + name }
