export { type HttpListener, type HttpPages, listenHttp } from './http-listener.ts';
export { HttpService, type ServiceLog } from './http-service.ts';
export { createRegistry, type MetricsText, metricsText, singleGauge } from './metrics.ts';
