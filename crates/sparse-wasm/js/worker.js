import { serve } from "./service.js";

const answer = serve(self);
self.onmessage = ({ data }) => answer(data);
