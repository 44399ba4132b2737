// A plug-in of every category on one unix socket (the first argument): grpc-go, its reflection and the messages that
// Dapr publishes for plug-ins. What it holds is in memory; a new process begins empty and refuses calls before Init.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	pb "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
)

var (
	mu       sync.Mutex
	inited   = map[string]map[string]string{}
	records  = map[string]record{}
	events   = make(chan *event, 1000)
	created  = make(chan []byte, 1000)
	attempts = 0
)

type record struct {
	data  []byte
	etag  int
	about map[string]string
}

type event struct {
	id          string
	topic       string
	contentType string
	data        []byte
}

// instance is the component that calls; every call but Init needs its Init to have come.
func instance(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	names := md.Get("x-component-instance")
	if len(names) != 1 {
		return "", status.Error(codes.InvalidArgument, "no x-component-instance")
	}
	mu.Lock()
	defer mu.Unlock()
	if inited[names[0]] == nil {
		return "", status.Error(codes.FailedPrecondition, names[0]+" has not been initialised")
	}
	return names[0], nil
}

func initialise(ctx context.Context, properties map[string]string) error {
	md, _ := metadata.FromIncomingContext(ctx)
	names := md.Get("x-component-instance")
	if len(names) != 1 {
		return status.Error(codes.InvalidArgument, "no x-component-instance")
	}
	if properties["fail"] != "" {
		return status.Error(codes.InvalidArgument, "told to fail: "+properties["fail"])
	}
	if properties == nil {
		properties = map[string]string{}
	}
	mu.Lock()
	inited[names[0]] = properties
	mu.Unlock()
	return nil
}

func unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	switch info.FullMethod {
	case pb.StateStore_Init_FullMethodName, pb.SecretStore_Init_FullMethodName, pb.PubSub_Init_FullMethodName,
		pb.InputBinding_Init_FullMethodName, pb.OutputBinding_Init_FullMethodName:
	default:
		if _, err := instance(ctx); err != nil {
			return nil, err
		}
	}
	return next(ctx, req)
}

type stateStore struct {
	pb.UnimplementedStateStoreServer
	pb.UnimplementedTransactionalStateStoreServer
	pb.UnimplementedTransactionalStoreMultiMaxSizeServer
	pb.UnimplementedQueriableStateStoreServer
}

func (stateStore) Init(ctx context.Context, r *pb.InitRequest) (*pb.InitResponse, error) {
	return &pb.InitResponse{}, initialise(ctx, r.GetMetadata().GetProperties())
}

func (stateStore) Features(context.Context, *pb.FeaturesRequest) (*pb.FeaturesResponse, error) {
	return &pb.FeaturesResponse{Features: []string{"ETAG", "TRANSACTIONAL"}}, nil
}

func (stateStore) MultiMaxSize(context.Context, *pb.MultiMaxSizeRequest) (*pb.MultiMaxSizeResponse, error) {
	return &pb.MultiMaxSizeResponse{MaxSize: 3}, nil
}

func etagError(code codes.Code, text string) error {
	detail := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: "etag", Description: text}}}
	st, err := status.New(code, text).WithDetails(detail)
	if err != nil {
		return err
	}
	return st.Err()
}

func check(key string, etag *pb.Etag, options *pb.StateOptions) error {
	held, found := records[key]
	if etag == nil {
		if options.GetConcurrency() == pb.StateOptions_CONCURRENCY_FIRST_WRITE && found {
			return etagError(codes.FailedPrecondition, "it is there")
		}
		return nil
	}
	wanted, err := strconv.Atoi(etag.Value)
	if err != nil {
		return etagError(codes.InvalidArgument, "not a number")
	}
	if !found || held.etag != wanted {
		return etagError(codes.FailedPrecondition, "another etag")
	}
	return nil
}

func (stateStore) Set(_ context.Context, r *pb.SetRequest) (*pb.SetResponse, error) {
	mu.Lock()
	defer mu.Unlock()
	if err := checkSet(r); err != nil {
		return nil, err
	}
	write(r)
	return &pb.SetResponse{}, nil
}

// ownError is an error whose HTTP status and code the plug-in chose.
func ownError(code codes.Code, text, http, tag string) error {
	detail := &errdetails.ErrorInfo{Reason: "OWN", Domain: "plugin",
		Metadata: map[string]string{"kit_error": "true", "http_code": http, "tag": tag}}
	st, _ := status.New(code, text).WithDetails(detail)
	return st.Err()
}

func checkSet(r *pb.SetRequest) error {
	if bytes.Equal(r.Value, []byte(`"quota"`)) {
		return ownError(codes.ResourceExhausted, "no room", "507", "ERR_QUOTA")
	}
	return check(r.Key, r.Etag, r.Options)
}

// write keeps what the request said beside the value, which reads give back as metadata.
func write(r *pb.SetRequest) {
	about := map[string]string{"concurrency": r.Options.GetConcurrency().String(),
		"consistency": r.Options.GetConsistency().String(), "contentType": r.ContentType}
	records[r.Key] = record{r.Value, records[r.Key].etag + 1, about}
}

// single is how a plug-in without calls for many keys answers.
func single(ctx context.Context) error {
	name, err := instance(ctx)
	if err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	if inited[name]["single"] != "" {
		return status.Error(codes.Unimplemented, "no call for many keys")
	}
	return nil
}

func (stateStore) BulkSet(ctx context.Context, r *pb.BulkSetRequest) (*pb.BulkSetResponse, error) {
	if err := single(ctx); err != nil {
		return nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	for _, one := range r.Items {
		if err := checkSet(one); err != nil {
			return nil, err
		}
	}
	for _, one := range r.Items {
		write(one)
	}
	fmt.Println("set together:", len(r.Items))
	return &pb.BulkSetResponse{}, nil
}

func (stateStore) BulkDelete(ctx context.Context, r *pb.BulkDeleteRequest) (*pb.BulkDeleteResponse, error) {
	if err := single(ctx); err != nil {
		return nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	for _, one := range r.Items {
		if err := check(one.Key, one.Etag, one.Options); err != nil {
			return nil, err
		}
	}
	for _, one := range r.Items {
		delete(records, one.Key)
	}
	fmt.Println("deleted together:", len(r.Items))
	return &pb.BulkDeleteResponse{}, nil
}

// Query knows one filter: EQ on one member. The token is the key after which to go on.
func (stateStore) Query(_ context.Context, r *pb.QueryRequest) (*pb.QueryResponse, error) {
	mu.Lock()
	defer mu.Unlock()
	wanted := map[string]any{}
	for operator, operand := range r.Query.Filter {
		if operator != "EQ" {
			return nil, ownError(codes.OutOfRange, operator+" is too much", "416", "ERR_ONLY_EQ")
		}
		if err := json.Unmarshal(operand.Value, &wanted); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
	}
	keys := []string{}
	for key := range records {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	if len(r.Query.Sort) > 0 && r.Query.Sort[0].Order == pb.Sorting_DESC {
		slices.Reverse(keys)
	}
	answer := &pb.QueryResponse{Metadata: map[string]string{"asked": r.Metadata["as"]}}
	after := r.Query.Pagination.GetToken()
	for _, key := range keys {
		if after != "" {
			if key == after {
				after = ""
			}
			continue
		}
		held := map[string]any{}
		item := &pb.QueryItem{Key: key, Data: records[key].data, Etag: &pb.Etag{Value: strconv.Itoa(records[key].etag)}}
		if json.Unmarshal(records[key].data, &held) != nil {
			item = &pb.QueryItem{Key: key, Error: "no document"}
		}
		matches := true
		for name, value := range wanted {
			matches = matches && reflect.DeepEqual(held[name], value)
		}
		if !matches {
			continue
		}
		answer.Items = append(answer.Items, item)
		if limit := r.Query.Pagination.GetLimit(); limit > 0 && int64(len(answer.Items)) == limit {
			answer.Token = key
			break
		}
	}
	return answer, nil
}

func (stateStore) Delete(_ context.Context, r *pb.DeleteRequest) (*pb.DeleteResponse, error) {
	mu.Lock()
	defer mu.Unlock()
	if err := check(r.Key, r.Etag, r.Options); err != nil {
		return nil, err
	}
	delete(records, r.Key)
	return &pb.DeleteResponse{}, nil
}

func (stateStore) Get(_ context.Context, r *pb.GetRequest) (*pb.GetResponse, error) {
	mu.Lock()
	defer mu.Unlock()
	if r.Key == "boom" {
		return nil, ownError(codes.DataLoss, "broken", "410", "ERR_BROKEN")
	}
	held, found := records[r.Key]
	if !found {
		return &pb.GetResponse{}, nil
	}
	etag := &pb.Etag{Value: strconv.Itoa(held.etag)}
	return &pb.GetResponse{Data: held.data, Etag: etag, Metadata: held.about}, nil
}

func (stateStore) BulkGet(ctx context.Context, r *pb.BulkGetRequest) (*pb.BulkGetResponse, error) {
	if err := single(ctx); err != nil {
		return nil, err
	}
	fmt.Println("get together, at once:", r.Options.GetParallelism())
	mu.Lock()
	defer mu.Unlock()
	answer := &pb.BulkGetResponse{}
	for i := len(r.Items) - 1; i >= 0; i-- {
		key := r.Items[i].Key
		if key == "boom" {
			return nil, ownError(codes.DataLoss, "broken", "410", "ERR_BROKEN")
		}
		held, found := records[key]
		if found {
			answer.Items = append(answer.Items,
				&pb.BulkStateItem{Key: key, Data: held.data, Etag: &pb.Etag{Value: strconv.Itoa(held.etag)}})
		}
	}
	return answer, nil
}

func (stateStore) Transact(_ context.Context, r *pb.TransactionalStateRequest) (*pb.TransactionalStateResponse, error) {
	mu.Lock()
	defer mu.Unlock()
	for _, one := range r.Operations {
		var err error
		if set := one.GetSet(); set != nil {
			err = checkSet(set)
		} else {
			err = check(one.GetDelete().Key, one.GetDelete().Etag, one.GetDelete().Options)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, one := range r.Operations {
		if set := one.GetSet(); set != nil {
			write(set)
		} else {
			delete(records, one.GetDelete().Key)
		}
	}
	return &pb.TransactionalStateResponse{}, nil
}

type secretStore struct {
	pb.UnimplementedSecretStoreServer
}

func (secretStore) Init(ctx context.Context, r *pb.SecretStoreInitRequest) (*pb.SecretStoreInitResponse, error) {
	return &pb.SecretStoreInitResponse{}, initialise(ctx, r.GetMetadata().GetProperties())
}

func (secretStore) Features(context.Context, *pb.FeaturesRequest) (*pb.FeaturesResponse, error) {
	return &pb.FeaturesResponse{Features: []string{"MULTIPLE_KEY_VALUES_PER_SECRET"}}, nil
}

func (secretStore) Get(ctx context.Context, r *pb.GetSecretRequest) (*pb.GetSecretResponse, error) {
	name, err := instance(ctx)
	if err != nil {
		return nil, err
	}
	if r.Key == "empty" {
		return &pb.GetSecretResponse{}, nil
	}
	if r.Key != "db" {
		return nil, status.Error(codes.NotFound, "no secret "+r.Key)
	}
	mu.Lock()
	defer mu.Unlock()
	return &pb.GetSecretResponse{Data: map[string]string{"user": inited[name]["user"], "asked": r.Metadata["as"]}}, nil
}

func (secretStore) BulkGet(context.Context, *pb.BulkGetSecretRequest) (*pb.BulkGetSecretResponse, error) {
	one := &pb.SecretResponse{Secrets: map[string]string{"user": "u"}}
	return &pb.BulkGetSecretResponse{Data: map[string]*pb.SecretResponse{"db": one}}, nil
}

type pubSub struct{ pb.UnimplementedPubSubServer }

func (pubSub) Init(ctx context.Context, r *pb.PubSubInitRequest) (*pb.PubSubInitResponse, error) {
	return &pb.PubSubInitResponse{}, initialise(ctx, r.GetMetadata().GetProperties())
}

func (pubSub) Features(ctx context.Context, _ *pb.FeaturesRequest) (*pb.FeaturesResponse, error) {
	name, err := instance(ctx)
	if err != nil {
		return nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	if inited[name]["bulk"] != "" {
		return &pb.FeaturesResponse{Features: []string{"BULK_PUBSUB"}}, nil
	}
	return &pb.FeaturesResponse{}, nil
}

// BulkPublish takes all entries but those with the metadata `refuse`, and none while there is one with `fail`.
func (pubSub) BulkPublish(_ context.Context, r *pb.BulkPublishRequest) (*pb.BulkPublishResponse, error) {
	answer := &pb.BulkPublishResponse{}
	for _, one := range r.Entries {
		fmt.Println("entry", r.Topic, one.EntryId, one.ContentType, len(r.Entries), r.Metadata["all"])
		if why := one.Metadata["fail"]; why != "" {
			return nil, status.Error(codes.Unavailable, why)
		}
		if why, found := one.Metadata["refuse"]; found {
			answer.FailedEntries = append(answer.FailedEntries, &pb.BulkPublishResponseFailedEntry{EntryId: one.EntryId, Error: why})
		}
	}
	return answer, nil
}

func (pubSub) Publish(_ context.Context, r *pb.PublishRequest) (*pb.PublishResponse, error) {
	mu.Lock()
	attempts++
	id := strconv.Itoa(attempts)
	mu.Unlock()
	events <- &event{id, r.Topic, r.ContentType, r.Data}
	return &pb.PublishResponse{}, nil
}

// PullMessages hands over one event at a time, and again while it is answered with an error.
func (pubSub) PullMessages(stream pb.PubSub_PullMessagesServer) error {
	if _, err := instance(stream.Context()); err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	fmt.Println("subscribed to", first.GetTopic().GetName())
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case one := <-events:
			for handled := false; !handled; {
				message := &pb.PullMessagesResponse{Data: one.data, TopicName: one.topic, ContentType: one.contentType, Id: one.id}
				if err := stream.Send(message); err != nil {
					return err
				}
				ack, err := stream.Recv()
				if err != nil {
					return err
				}
				handled = ack.AckMessageId == one.id && ack.AckError == nil
				if !handled {
					fmt.Println("not handled:", ack.AckError.GetMessage())
					time.Sleep(20 * time.Millisecond)
				}
			}
		}
	}
}

type input struct {
	pb.UnimplementedInputBindingServer
}

func (input) Init(ctx context.Context, r *pb.InputBindingInitRequest) (*pb.InputBindingInitResponse, error) {
	return &pb.InputBindingInitResponse{}, initialise(ctx, r.GetMetadata().GetProperties())
}

// Read hands over what the output binding was given, and prints what the app answers.
func (input) Read(stream pb.InputBinding_ReadServer) error {
	if _, err := instance(stream.Context()); err != nil {
		return err
	}
	for i := 0; ; i++ {
		select {
		case <-stream.Context().Done():
			return nil
		case data := <-created:
			id := strconv.Itoa(i)
			if err := stream.Send(&pb.ReadResponse{Data: data, MessageId: id, Metadata: map[string]string{"From": "plugin"}}); err != nil {
				return err
			}
			answer, err := stream.Recv()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			fmt.Printf("answer %v failed=%v: %s\n", answer.MessageId == id, answer.ResponseError != nil, answer.ResponseData)
			if answer.ResponseError != nil {
				created <- data
			}
		}
	}
}

type output struct {
	pb.UnimplementedOutputBindingServer
}

func (output) Init(ctx context.Context, r *pb.OutputBindingInitRequest) (*pb.OutputBindingInitResponse, error) {
	return &pb.OutputBindingInitResponse{}, initialise(ctx, r.GetMetadata().GetProperties())
}

func (output) ListOperations(context.Context, *pb.ListOperationsRequest) (*pb.ListOperationsResponse, error) {
	return &pb.ListOperationsResponse{Operations: []string{"create", "echo"}}, nil
}

func (output) Invoke(_ context.Context, r *pb.InvokeRequest) (*pb.InvokeResponse, error) {
	if r.Operation == "echo" {
		return &pb.InvokeResponse{Data: r.Data, Metadata: map[string]string{"seen": r.Metadata["k"]}}, nil
	}
	created <- r.Data
	return &pb.InvokeResponse{}, nil
}

func main() {
	path := os.Args[1]
	_ = os.Remove(path)
	listener, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(unary))
	pb.RegisterStateStoreServer(server, stateStore{})
	pb.RegisterTransactionalStateStoreServer(server, stateStore{})
	pb.RegisterTransactionalStoreMultiMaxSizeServer(server, stateStore{})
	pb.RegisterQueriableStateStoreServer(server, stateStore{})
	pb.RegisterSecretStoreServer(server, secretStore{})
	pb.RegisterPubSubServer(server, pubSub{})
	pb.RegisterInputBindingServer(server, input{})
	pb.RegisterOutputBindingServer(server, output{})
	reflection.Register(server)
	fmt.Println("serving", path)
	if err := server.Serve(listener); err != nil {
		panic(err)
	}
}
