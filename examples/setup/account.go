package main

import (
	"fmt"
	"strings"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// account stands for AWS accounts and the person who sets them up: what the
// policies say is put where it belongs, in an S3 and an STS that enforce it.
type account struct {
	server  *s3sinktest.Server
	users   map[string]s3sinktest.User // by ARN, as the next three
	roles   map[string]s3sinktest.Role
	buckets map[string]s3sinktest.BucketSettings
	keys    map[string]s3sinktest.KMSKey
}

func newAccount(server *s3sinktest.Server) *account {
	return &account{
		server:  server,
		users:   map[string]s3sinktest.User{},
		roles:   map[string]s3sinktest.Role{},
		buckets: map[string]s3sinktest.BucketSettings{},
		keys:    map[string]s3sinktest.KMSKey{},
	}
}

// mayNothing is the policy of a new user: it allows what needs no permission.
const mayNothing = `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:GetCallerIdentity", "Resource": "*"}]}`

// addUser adds a user who may do nothing.
func (a *account) addUser(arn, accessKeyID, secret string) {
	user := s3sinktest.User{ARN: arn, AccessKeyID: accessKeyID, SecretAccessKey: secret, Policy: mayNothing}
	a.users[arn] = user
	a.server.AddUser(user)
}

func (a *account) addBucket(name, region string, settings s3sinktest.BucketSettings) {
	a.server.CreateBucket(name, region)
	a.server.ConfigureBucket(name, settings)
	a.buckets["arn:aws:s3:::"+name] = settings
}

func (a *account) addKey(key s3sinktest.KMSKey) {
	a.server.AddKMSKey(key)
	a.keys[key.ARN] = key
}

// apply does what the command for the document does, or the console.
func (a *account) apply(d s3sink.PolicyDocument) error {
	user, isUser := a.users[d.Of]
	role, isRole := a.roles[d.Of]
	bucket, isBucket := a.buckets[d.Of]
	key, isKey := a.keys[d.Of]
	policy := d.Policy.String()
	switch {
	case d.Kind == s3sink.TrustPolicy:
		if !isRole { // aws iam create-role
			role = s3sinktest.Role{ARN: d.Of, Actions: []string{}} // none
		}
		role.TrustedPrincipals, role.ExternalID = trusted(d.Policy)
		a.roles[d.Of] = role
		a.server.AddRole(role)
	case d.Kind == s3sink.PermissionsPolicy && isRole:
		role.Policy = policy
		a.roles[d.Of] = role
		a.server.AddRole(role)
	case d.Kind == s3sink.PermissionsPolicy && isUser:
		user.Policy = policy
		a.users[d.Of] = user
		a.server.AddUser(user)
	case d.Kind == s3sink.BucketPolicy && isBucket:
		bucket.Policy = policy
		a.buckets[d.Of] = bucket
		a.server.ConfigureBucket(d.Of[strings.LastIndexByte(d.Of, ':')+1:], bucket)
	case d.Kind == s3sink.KeyPolicy && isKey:
		key.Policy = policy
		a.addKey(key)
	default:
		return fmt.Errorf("%s of %s: nobody has that name here", d.Kind, d.Of)
	}
	return nil
}

// trusted reads a trust policy of ours.
func trusted(p s3sink.Policy) (principals []string, externalID string) {
	s := p.Statement[0]
	if ids := s.Condition["StringEquals"]["sts:ExternalId"]; len(ids) > 0 {
		externalID = ids[0]
	}
	return []string{s.Principal["AWS"]}, externalID
}
