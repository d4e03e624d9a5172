package s3sinktest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

const (
	sseHeader          = "X-Amz-Server-Side-Encryption"
	sseKeyHeader       = sseHeader + "-Aws-Kms-Key-Id"
	sseContextHeader   = sseHeader + "-Context"
	sseBucketKeyHeader = sseHeader + "-Bucket-Key-Enabled"

	sseS3   = "AES256"
	sseKMS  = "aws:kms"
	sseDSSE = "aws:kms:dsse"

	managedAlias = "alias/aws/s3"
)

// KMSKeyState says whether a key can be used.
type KMSKeyState string

// What KMS calls the states of a key. An empty state is enabled.
const (
	KeyEnabled         KMSKeyState = "Enabled"
	KeyDisabled        KMSKeyState = "Disabled"
	KeyPendingDeletion KMSKeyState = "PendingDeletion"
)

// A KMSKey encrypts objects. Its ARN names its region and account.
type KMSKey struct {
	ARN     string   // such as arn:aws:kms:eu-west-1:111122223333:key/1234abcd-…
	Aliases []string // such as alias/events

	State      KMSKeyState
	Asymmetric bool // such keys cannot encrypt objects

	// Policy is the key policy, a JSON document. Empty is the default one: the
	// policies of the key's account decide, and no other account has a say:
	// https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-default.html
	Policy string
}

// kmsKey is a KMSKey that has been read.
type kmsKey struct {
	KMSKey
	policy *policy
}

var kmsARN = regexp.MustCompile(`^arn:aws(-[a-z]+)*:kms:[a-z0-9-]+:[0-9]{12}:key/[a-zA-Z0-9/_-]+$`)

// AddKMSKey adds a key, or changes the key with the same ARN. A put that asks
// for KMS encryption, or whose bucket does, needs kms:GenerateDataKey on a key
// that is here; so needs a GET of its object kms:Decrypt. Only the key aws/s3
// of every account, which is meant when no key is named, is always there. It
// panics when it does not understand the ARN, the state or the policy.
func (s *Server) AddKMSKey(key KMSKey) {
	if !kmsARN.MatchString(key.ARN) || !slices.Contains([]KMSKeyState{"", KeyEnabled, KeyDisabled, KeyPendingDeletion}, key.State) {
		panic(fmt.Sprintf("s3sinktest: KMS key %+v", key))
	}
	key.Aliases = slices.Clone(key.Aliases)
	p := mustPolicy(key.ARN, key.Policy, parseResourcePolicy)
	if p == nil {
		p = keyPolicyFor(accountRoot(key.ARN))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kmsKeys[key.ARN] = kmsKey{key, p}
}

func keyPolicyFor(principal string) *policy {
	return mustPolicy("a key", `{"Version":"`+policyVersion+`","Statement":
		{"Effect":"Allow","Principal":{"AWS":"`+principal+`"},"Action":"kms:*","Resource":"*"}}`, parseResourcePolicy)
}

// managedKey is the key aws/s3 of an account. It lets the whole account use it
// through S3, whatever the policies of its identities are.
func managedKey(region, account string) kmsKey {
	sum := sha256.Sum256([]byte(region + account))
	arn := fmt.Sprintf("arn:%s:kms:%s:%s:key/%s", partitionOf(region), region, account, formatUUID(hex.EncodeToString(sum[:16])))
	// The policy allows every principal; kmsKey gives the key to its account only.
	return kmsKey{KMSKey{ARN: arn}, keyPolicyFor("*")}
}

// kmsKey finds the key that a request or a bucket names. An id or an alias says
// nothing of its account: it is the caller's, also where a bucket names it:
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-encryption.html
//
// S3 answers with KMS's errors under names of its own. Their statuses are taken
// to be KMS's, 400; the texts are from published reports.
func (s *Server) kmsKey(name, region, account string) (kmsKey, *apiError) {
	if name == "" || name == managedAlias {
		return managedKey(region, account), nil
	}
	alias := strings.HasPrefix(name, "alias/")
	if fields := strings.SplitN(name, ":", 6); len(fields) == 6 {
		if fields[3] != region {
			return kmsKey{}, kmsError("NotFoundException", "Invalid arn "+fields[3])
		}
		account, alias = fields[4], strings.HasPrefix(fields[5], "alias/")
	}
	id := name[strings.LastIndexByte(name, ':')+1:]
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range s.kmsKeys {
		if arnField(key.ARN, 3) != region || arnField(key.ARN, 4) != account {
			continue
		}
		if alias && slices.Contains(key.Aliases, id) || !alias && strings.TrimPrefix(id, "key/") == arnField(key.ARN, 5)[len("key/"):] {
			return key, nil
		}
	}
	switch {
	case alias:
		return kmsKey{}, kmsError("NotFoundException", fmt.Sprintf("Alias arn:%s:kms:%s:%s:%s is not found.", partitionOf(region), region, account, id))
	case strings.HasPrefix(name, "arn:"):
		return kmsKey{}, kmsError("NotFoundException", fmt.Sprintf("Key '%s' does not exist", name))
	}
	return kmsKey{}, kmsError("NotFoundException", fmt.Sprintf("Invalid keyId '%s'", name))
}

func kmsError(code, message string) *apiError {
	return &apiError{status: 400, code: "KMS." + code, message: message}
}

// usable says whether the key can encrypt.
func (k kmsKey) usable() *apiError {
	switch {
	case k.Asymmetric:
		return kmsError("InvalidKeyUsageException", "You cannot generate a data key with an asymmetric KMS key")
	case k.State == KeyDisabled:
		return kmsError("DisabledException", k.ARN+" is disabled.")
	case k.State == KeyPendingDeletion:
		return kmsError("KMSInvalidStateException", k.ARN+" is pending deletion.")
	}
	return nil
}

// authorizeKey says whether the caller may do this with the key, through S3.
// KMS tells callers of other accounts less.
func (s *Server) authorizeKey(c *call, key kmsKey, region, action string) *apiError {
	via := "s3." + region + ".amazonaws.com"
	if partitionOf(region) == "aws-cn" {
		via += ".cn"
	}
	q := question{who: c.caller, action: action, resource: key.ARN, isKey: true, context: s3Context(c.r)}
	q.context["kms:viaservice"] = via
	said := key.policy.ask(q)
	reason := s.decide(q, said, account(key.ARN))
	switch {
	case reason == "":
		return nil
	case account(c.caller.arn) == account(key.ARN):
		return q.denial(false, reason)
	}
	return accessDenied("User: " + c.caller.arn + " is not authorized to perform: " + action +
		" on this resource because the resource does not exist in this Region, no resource-based policies allow access, " +
		"or a resource-based policy explicitly denies access")
}

// encryption is how an object is encrypted.
type encryption struct {
	algorithm string
	key       string // ARN
	bucketKey bool
	context   map[string]string
}

// encrypt decides how, and asks for a data key if KMS is to do it. A request
// that asks for an algorithm overrides all that the bucket does by default.
func (s *Server) encrypt(c *call) (encryption, *apiError) {
	place, _ := s.place(c.bucket)
	h := c.r.Header
	e, name := encryption{algorithm: place.Encryption, bucketKey: place.BucketKey}, place.KMSKeyID
	if sse := h.Get(sseHeader); sse != "" {
		e, name = encryption{algorithm: sse}, h.Get(sseKeyHeader)
	}
	if v := h.Get(sseBucketKeyHeader); v != "" {
		e.bucketKey = v == "true"
	}
	if e.algorithm == "" || e.algorithm == sseS3 {
		return encryption{algorithm: sseS3}, nil
	}
	if account(c.caller.arn) != place.Owner && place.Owner != "" && (name == "" || name == managedAlias) {
		// No other account can use its owner's aws/s3.
		return e, kmsError("NotFoundException", "Invalid keyId aws/s3")
	}
	key, err := s.kmsKey(name, place.region, account(c.caller.arn))
	if err != nil {
		return e, err
	}
	if err := s.authorizeKey(c, key, place.region, actionDataKey); err != nil {
		return e, err
	}
	e.key = key.ARN
	e.context, _ = encryptionContext(h) // has been checked
	return e, key.usable()
}

// authorizeDecrypt is for GET, which is the only one to need the data key.
func (s *Server) authorizeDecrypt(c *call, obj storedObject) *apiError {
	if obj.SSEKMSKeyID == "" || c.r.Method != http.MethodGet {
		return nil
	}
	s.mu.Lock()
	key, ok := s.kmsKeys[obj.SSEKMSKeyID]
	s.mu.Unlock()
	if !ok {
		key = kmsKey{KMSKey{ARN: obj.SSEKMSKeyID}, keyPolicyFor("*")} // managed: the others cannot be removed
	}
	if err := s.authorizeKey(c, key, arnField(obj.SSEKMSKeyID, 3), actionDecrypt); err != nil {
		return err
	}
	return key.usable()
}

func checkEncryption(c *call) *apiError {
	h := c.r.Header
	if v := h.Get(sseBucketKeyHeader); v != "" && v != "true" && v != "false" {
		return invalidArgument("The header x-amz-server-side-encryption-bucket-key-enabled must be true or false")
	}
	if _, ok := encryptionContext(h); !ok {
		return invalidArgument("The header 'x-amz-server-side-encryption-context' shall be Base64-encoded UTF-8 string " +
			"holding JSON which represents a string-string map")
	}
	switch sse := h.Get(sseHeader); sse {
	case sseKMS, sseDSSE:
		return nil
	case "", sseS3:
		if h.Get(sseKeyHeader) == "" && h.Get(sseContextHeader) == "" {
			return nil
		}
		return invalidArgument("Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms")
	}
	return &apiError{status: 400, code: "InvalidEncryptionAlgorithmError",
		message: "The encryption request that you specified is not valid. The valid value is AES256."}
}

func encryptionContext(h http.Header) (context map[string]string, ok bool) {
	header := h.Get(sseContextHeader)
	if header == "" {
		return nil, true
	}
	text, err := base64.StdEncoding.DecodeString(header)
	if err != nil {
		return nil, false
	}
	return context, json.Unmarshal(text, &context) == nil
}

func invalidArgument(message string) *apiError {
	return &apiError{status: 400, code: "InvalidArgument", message: message}
}
